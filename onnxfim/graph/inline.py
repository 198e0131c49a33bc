"""Put the body of an ONNX function in place of a call to it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import onnx

from onnxfim.errors import ModelError
from onnxfim.graph.emitter import Emitter
from onnxfim.graph.shapes import STANDARD, Walk
from onnxfim.graph.simplify import rename
from onnxfim.graph.upgrade import upgrade

SCHEMA_FUNCTIONS = frozenset({
    "Attention", "CenterCropPad", "MeanVarianceNormalization", "NegativeLogLikelihoodLoss", "RotaryEmbedding",
    "SoftmaxCrossEntropyLoss",
})  # fmt: skip


def schema_function(node: onnx.NodeProto, found: Walk, opset: int) -> onnx.FunctionProto | None:
    """The body that the ONNX standard gives for an operator, for the inputs at hand."""
    if node.domain not in STANDARD or node.op_type not in SCHEMA_FUNCTIONS:
        return None
    schema = onnx.defs.get_schema(node.op_type, opset)
    if schema.has_function:
        body = schema.function_body
    elif all(not i or i in found.shapes for i in node.input):
        types = [onnx.helper.make_tensor_type_proto(found.elem[i], found.shapes[i]) if i else onnx.TypeProto() for i in node.input]
        body = onnx.FunctionProto()
        body.ParseFromString(
            schema.get_context_dependent_function(node.SerializeToString(), [t.SerializeToString() for t in types])
        )
    else:
        return None
    return body if body.node else None


Functions: TypeAlias = "Mapping[tuple[str, str, str], onnx.FunctionProto]"


def local_functions(model: onnx.ModelProto) -> Functions:
    """The model's own functions by domain, name and overload.

    Raises:
        ModelError: a function that calls itself, on whatever way.
    """
    functions = {(f.domain, f.name, f.overload): f for f in model.functions}
    calls = {k: {(n.domain, n.op_type, n.overload) for n in f.node} & functions.keys() for k, f in functions.items()}
    while calls:
        leaves = {k for k, called in calls.items() if not called}
        if not leaves:
            name = ".".join(min(calls)[:2])
            raise ModelError(f"function {name!r}: calls itself, so it cannot be written out. Re-export the model.")
        calls = {k: called - leaves for k, called in calls.items() if k not in leaves}
    return functions


def inlined(node: onnx.NodeProto, body: onnx.FunctionProto, opset: int, emitter: Emitter) -> list[onnx.NodeProto]:
    """The function's nodes with the caller's names and attributes, at the caller's operator set; subgraphs keep the function's."""
    names = dict(zip(body.input, node.input, strict=False))
    names.update(dict.fromkeys(list(body.input)[len(node.input) :], ""))
    names.update({k: v for k, v in zip(body.output, node.output, strict=False) if v})
    attributes = {a.name: a for a in body.attribute_proto}
    attributes.update({a.name: a for a in node.attribute})
    nodes = [_bound(inner, names, attributes, emitter, where=node.name) for inner in body.node]
    version = next((o.version for o in body.opset_import if o.domain in STANDARD), opset)
    return upgrade(nodes, version, emitter) if version < opset else nodes


def _bound(
    inner: onnx.NodeProto,
    names: dict[str, str],
    attributes: Mapping[str, onnx.AttributeProto],
    emitter: Emitter,
    *,
    where: str,
) -> onnx.NodeProto:
    node = onnx.NodeProto(op_type=inner.op_type, domain=inner.domain, name=f"{where}/{inner.name or inner.op_type}")
    node.overload = inner.overload
    node.input.extend(names.get(i, i) if i else "" for i in inner.input)
    for output in inner.output:
        if output and output not in names:
            names[output] = emitter.fresh(inner.op_type)
        node.output.append(names[output] if output else "")
    node.attribute.extend(_attributes(inner, names, attributes))
    return node


def _attributes(
    node: onnx.NodeProto, names: Mapping[str, str], attributes: Mapping[str, onnx.AttributeProto]
) -> list[onnx.AttributeProto]:
    """A node's attributes with the caller's values, those of nodes in its subgraphs too."""
    bound = []
    for a in node.attribute:
        if a.ref_attr_name and a.ref_attr_name not in attributes:
            continue
        copy = onnx.AttributeProto()
        copy.CopyFrom(attributes[a.ref_attr_name] if a.ref_attr_name else a)
        copy.name = a.name
        for graph in (*copy.graphs, *([copy.g] if copy.type == onnx.AttributeProto.GRAPH else [])):
            for inner in graph.node:
                rename(inner, names)
                own = _attributes(inner, {}, attributes)
                del inner.attribute[:]
                inner.attribute.extend(own)
            for output in graph.output:
                output.name = names.get(output.name, output.name)
        bound.append(copy)
    return bound
