"""A model file whose protobuf fields say odd things: as typed fields, and on the wire where no library would write them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import numpy as np
import onnx
from onnx import helper, numpy_helper

from tests.fuzz.families import _odd
from tests.fuzz.families._bases import command, pick
from tests.fuzz.families._odd import one
from tests.fuzz.harness import Case

Rng: TypeAlias = np.random.Generator
Model: TypeAlias = onnx.ModelProto


def case(rng: Rng, folder: Path) -> Case:
    """One to three odd fields, or one on the wire."""
    base = pick(rng)
    content, notes = base.content, []
    if rng.random() < 0.7:
        proto = base.proto()
        for _ in range(int(rng.choice([1, 1, 1, 2, 3]))):
            edit = one(rng, _EDITS)
            try:
                notes.append(f"{edit.__name__.strip('_')} {edit(rng, proto) or ''}"[:160])
            except IndexError:  # an earlier edit left nothing to choose from
                notes.append(f"{edit.__name__.strip('_')}, nothing there")
        content = proto.SerializeToString()
    if not notes or rng.random() < 0.2:
        content, note = _on_the_wire(rng, content)
        notes.append(note)
    (folder / "m.onnx").write_bytes(content)
    return command(rng, folder, base, note=f"{base.name}: {'; '.join(notes)}")


def _node(rng: Rng, m: Model) -> onnx.NodeProto:
    return one(rng, list(m.graph.node))


def _attribute(rng: Rng, m: Model) -> str:
    node = _node(rng, m)
    called = one(rng, [a.name for a in node.attribute] or ["axis"]) if rng.random() < 0.5 else one(rng, _odd.ATTRIBUTES)
    kept = [a for a in node.attribute if a.name != called or rng.random() < 0.1]
    made = _odd.attribute(rng, called)
    del node.attribute[:]
    node.attribute.extend([*kept, made])
    return f"{node.op_type}.{called} type {made.type}"


def _constant(rng: Rng, m: Model) -> str:
    """A bad Constant in the place of an initializer, or before an output."""
    called = one(rng, _odd.CONSTANTS)
    attributes = [_odd.attribute(rng, called)] if rng.random() < 0.9 else []
    if rng.random() < 0.2:
        attributes.append(_odd.attribute(rng, one(rng, _odd.CONSTANTS)))
    stored = list(m.graph.initializer)
    name = one(rng, stored).name if stored else "c"
    for k, tensor in enumerate(stored):
        if tensor.name == name:
            del m.graph.initializer[k]
            break
    node = helper.make_node("Constant", [] if rng.random() < 0.9 else ["x"], [name][: int(rng.random() < 0.95)])
    node.attribute.extend(attributes)
    m.graph.node.insert(0, node)
    return f"Constant with {called!r}"


def _tensor(rng: Rng, m: Model) -> str:
    stored = one(rng, list(m.graph.initializer))
    made = _odd.tensor(rng)
    made.name = stored.name if rng.random() < 0.8 else one(rng, _odd.NAMES)
    stored.CopyFrom(made)
    return f"type {made.data_type} dims {list(made.dims)[:4]}"


def _tensor_type(rng: Rng, m: Model) -> str:
    stored = one(rng, list(m.graph.initializer))
    stored.data_type = int(rng.integers(-2, 40))
    return f"{stored.name} is {stored.data_type}"


def _weights(rng: Rng, m: Model) -> str:
    """The same weights in another type, shape or with odd values."""
    stored = one(rng, list(m.graph.initializer))
    try:
        value = np.array(numpy_helper.to_array(stored))
        value.astype(np.float32)
    except (TypeError, ValueError, KeyError):  # an earlier change made it no tensor, or one of text
        return f"{stored.name} left as it is"
    how = one(
        rng,
        [
            "float64",
            "float16",
            "int8",
            "transposed",
            "flat",
            "nan",
            "inf",
            "huge",
            "zero",
            "empty",
            "scalar",
            "more axes",
            "string",
        ],
    )
    if how in ("float64", "float16", "int8"):
        value = value.astype(how)
    elif how in ("nan", "inf", "huge", "zero"):
        value = value.astype(np.float32) * 0 + {"nan": np.nan, "inf": np.inf, "huge": np.float32(3e38), "zero": 0}[how]
        value = value.astype(np.float32)
    else:
        value = {"transposed": value.T, "flat": value.ravel(), "empty": value.ravel()[:0], "scalar": np.float32(1), "more axes": value[None, None],
                 "string": np.full(value.shape, b"a", object)}[how]  # fmt: skip
    stored.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(value), stored.name))
    return f"{stored.name} {how}"


def _dims(rng: Rng, m: Model) -> str:
    values = [*m.graph.input, *m.graph.output, *m.graph.value_info]
    shape = one(rng, values).type.tensor_type.shape
    if not shape.dim or rng.random() < 0.2:
        shape.dim.add().dim_value = one(rng, _odd.DIMS)
        return "one more"
    at = int(rng.integers(len(shape.dim)))
    if rng.random() < 0.6:
        shape.dim[at].dim_value = one(rng, _odd.DIMS)
    elif rng.random() < 0.7:
        shape.dim[at].dim_param = one(rng, _odd.NAMES)
    else:
        shape.dim[at].Clear()
    return f"{at}: {str(shape.dim[at])[:40]!r}"


def _value_type(rng: Rng, m: Model) -> str:
    value = one(rng, [*m.graph.input, *m.graph.output])
    how = int(rng.integers(6))
    if how == 0:
        value.ClearField("type")
    elif how == 1:
        value.type.tensor_type.ClearField("shape")
    elif how == 2:
        value.type.CopyFrom(helper.make_sequence_type_proto(helper.make_tensor_type_proto(1, [2])))
    elif how == 3:
        value.type.CopyFrom(helper.make_optional_type_proto(helper.make_tensor_type_proto(1, [2])))
    else:
        value.type.tensor_type.elem_type = int(rng.integers(0, 30))
    return f"{how} of {value.name}"


def _rename_value(rng: Rng, m: Model) -> str:
    """An odd name, everywhere or at one place only."""
    old, new = _odd.name(rng, m), one(rng, _odd.NAMES)
    everywhere = rng.random() < 0.7
    for node in m.graph.node:
        for names in (node.input, node.output):
            for k, n in enumerate(names):
                if n == old and (everywhere or rng.random() < 0.3):
                    names[k] = new
    for value in (*m.graph.input, *m.graph.output, *m.graph.initializer, *m.graph.value_info):
        if value.name == old and everywhere:
            value.name = new
    return f"{old[:20]!r} to {new[:20]!r}"


def _node_name(rng: Rng, m: Model) -> str:
    for node in m.graph.node:
        if rng.random() < 0.5:
            node.name = one(rng, _odd.NAMES)
            node.doc_string = one(rng, _odd.NAMES)
    return ""


def _rewire(rng: Rng, m: Model) -> str:
    node = _node(rng, m)
    how = int(rng.integers(7))
    if how == 0 and node.input:
        node.input[int(rng.integers(len(node.input)))] = _odd.name(rng, m)
    elif how == 1:
        del node.input[:]
    elif how == 2:
        del node.output[:]
    elif how == 3:
        node.input.append(_odd.name(rng, m))
    elif how == 4:
        node.output.append(_odd.name(rng, m))
    elif how == 5 and node.output:
        node.output[int(rng.integers(len(node.output)))] = _odd.name(rng, m)
    elif node.input:
        node.input.pop(int(rng.integers(len(node.input))))
    return f"{how} {node.op_type}"


def _operator(rng: Rng, m: Model) -> str:
    node = _node(rng, m)
    if rng.random() < 0.8:
        node.op_type = one(rng, _odd.OPERATORS)
    if rng.random() < 0.3:
        node.domain = one(rng, _odd.DOMAINS)
    return f"{node.domain!r} {node.op_type!r}"


def _order(rng: Rng, m: Model) -> str:
    nodes = list(m.graph.node)
    how = one(rng, ["reversed", "shuffled", "doubled", "one less", "none"])
    if how == "reversed":
        nodes.reverse()
    elif how == "shuffled":
        nodes = [nodes[i] for i in rng.permutation(len(nodes))]
    elif how == "doubled":
        nodes.append(one(rng, nodes))
    elif how == "one less":
        nodes.remove(one(rng, nodes))
    else:
        nodes = []
    made = [onnx.NodeProto.FromString(n.SerializeToString()) for n in nodes]
    del m.graph.node[:]
    m.graph.node.extend(made)
    return how


def _ends(rng: Rng, m: Model) -> str:
    g = m.graph
    how = int(rng.integers(10))
    if how == 0:
        del g.output[:]
    elif how == 1:
        del g.input[:]
    elif how == 2:
        g.output[0].name = _odd.name(rng, m)
    elif how == 3:
        g.input[0].name = _odd.name(rng, m)
    elif how == 4:
        g.output.add().CopyFrom(one(rng, [*g.output, *g.input]))
    elif how == 5:
        g.input.add().CopyFrom(one(rng, [*g.output, *g.input]))
    elif how == 6:
        del g.initializer[:]
    elif how == 7:
        g.initializer.add().CopyFrom(one(rng, list(g.initializer)))
    elif how == 8:
        g.input.append(
            helper.make_tensor_value_info(one(rng, list(g.initializer)).name, int(rng.integers(1, 12)), [one(rng, _odd.DIMS)])
        )
    else:
        g.output.insert(0, helper.make_tensor_value_info(_odd.name(rng, m), int(rng.integers(1, 12)), None))
    return str(how)


def _versions(rng: Rng, m: Model) -> str:
    how = int(rng.integers(7))
    if how == 0:
        m.ir_version = one(rng, _odd.NUMBERS)
    elif how == 1:
        m.opset_import[0].version = one(rng, _odd.NUMBERS)
    elif how == 2:
        m.opset_import[0].version = int(rng.integers(1, 30))
    elif how == 3:
        m.opset_import[0].domain = one(rng, _odd.DOMAINS)
    elif how == 4:
        m.opset_import.append(helper.make_opsetid(one(rng, _odd.DOMAINS), one(rng, [0, 1, 5, 17, -1, 1 << 40])))
    elif how == 5:
        m.ClearField("ir_version")
    else:
        m.producer_name, m.producer_version, m.domain, m.doc_string = (one(rng, _odd.NAMES) for _ in range(4))
        m.model_version = one(rng, _odd.NUMBERS)
        m.metadata_props.append(onnx.StringStringEntryProto(key=one(rng, _odd.NAMES), value=one(rng, _odd.NAMES)))
    return f"{how}: {m.ir_version}, {[(o.domain, o.version) for o in m.opset_import][:2]}"


def _function(rng: Rng, m: Model) -> str:
    """A function that is odd: recursive, unused, without outputs, shadowing an operator, calling itself by way of another."""
    how = int(rng.integers(6))
    op = _node(rng, m)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    body = [helper.make_node("Relu", ["a"], ["b"])]
    if how == 0:
        body = [helper.make_node("F", ["a"], ["b"], domain="own")]
    elif how == 1:
        body = [helper.make_node("G", ["a"], ["b"], domain="own")]
        m.functions.append(
            helper.make_function("own", "G", ["a"], ["b"], [helper.make_node("F", ["a"], ["b"], domain="own")], opsets)
        )
    elif how == 2:
        body = []
    domain, name = ("", op.op_type) if how == 3 else ("own", "F")
    inputs, outputs = (["a"], ["b"]) if how != 4 else ([], [])
    made = helper.make_function(
        domain, name, inputs, outputs, body, opsets if how != 5 else [], ["alpha"] if rng.random() < 0.3 else []
    )
    m.functions.append(made)
    m.opset_import.append(helper.make_opsetid("own", 1))
    if how != 3:
        op.domain, op.op_type = "own", "F"
    return str(how)


def _sparse(rng: Rng, m: Model) -> str:
    stored = one(rng, list(m.graph.initializer))
    made = m.graph.sparse_initializer.add()
    made.values.CopyFrom(_odd.tensor(rng))
    made.values.name = stored.name
    made.indices.CopyFrom(_odd.tensor(rng))
    made.dims.extend(one(rng, _odd.DIMS) for _ in range(int(rng.integers(0, 3))))
    if rng.random() < 0.6:
        m.graph.initializer.remove(stored)
    return made.values.name[:20]


def _quantisation_notes(rng: Rng, m: Model) -> str:
    note = m.graph.quantization_annotation.add()
    note.tensor_name = _odd.name(rng, m)
    note.quant_parameter_tensor_names.append(onnx.StringStringEntryProto(key="SCALE_TENSOR", value=_odd.name(rng, m)))
    m.graph.name = one(rng, _odd.NAMES)
    return ""


_EDITS: tuple[Callable[[Rng, Model], str], ...] = (
    _attribute, _attribute, _attribute, _constant, _constant, _tensor, _tensor_type, _weights, _weights, _dims, _dims, _value_type, _rename_value, _rename_value,
    _node_name, _rewire, _rewire, _operator, _operator, _order, _ends, _ends, _versions, _function, _sparse, _quantisation_notes,
)  # fmt: skip


def _varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80 or shift > 63:
            return value, at


def _fields(data: bytes) -> list[tuple[int, int, bytes]]:
    """Fields of a message: number, wire type, content.

    Raises:
        IndexError, ValueError: not a message.
    """
    found, at = [], 0
    while at < len(data):
        key, at = _read_varint(data, at)
        kind = key & 7
        if kind == 0:
            value, end = _read_varint(data, at)
            found.append((key >> 3, kind, _varint(value)))
        elif kind in (1, 5):
            end = at + (8 if kind == 1 else 4)
            found.append((key >> 3, kind, data[at:end]))
        elif kind == 2:
            length, at = _read_varint(data, at)
            end = at + length
            found.append((key >> 3, kind, data[at:end]))
        else:
            raise ValueError("no message")
        if end > len(data):
            raise ValueError("no message")
        at = end
    return found


def _on_the_wire(rng: Rng, data: bytes, depth: int = 0) -> tuple[bytes, str]:
    """The message with one field changed, some levels down."""
    try:
        fields = _fields(data)
    except (IndexError, ValueError):
        fields = []
    if not fields:
        return rng.bytes(int(rng.integers(0, 20))), f"noise at depth {depth}"
    at = int(rng.integers(len(fields)))
    if depth == 0 and rng.random() < 0.8:  # the graph is the largest field
        at = max(range(len(fields)), key=lambda k: len(fields[k][2]))
    number, kind, content = fields[at]
    note = f"field {number} of wire type {kind} at depth {depth}"
    how = rng.random()
    if kind == 2 and how < 0.7 and depth < 6:
        content, note = (
            _on_the_wire(rng, content, depth + 1)
            if len(content) > 2 and rng.random() < 0.8
            else (_mangled(rng, content), note + " mangled")
        )
    elif how < 0.75:
        kind, content = (0, _varint(one(rng, _odd.NUMBERS))) if kind == 0 else (kind, _mangled(rng, content))
        note += " changed"
    elif how < 0.8:
        number, note = int(rng.integers(1, 32)), note + " renumbered"
    elif how < 0.9:
        fields.insert(at, fields[at])
        note += " doubled"
    else:
        del fields[at]
        return b"".join(map(_encoded, fields)), note + " left out"
    fields[at] = (number, kind, content)
    return b"".join(map(_encoded, fields)), note


def _mangled(rng: Rng, content: bytes) -> bytes:
    how = int(rng.integers(4))
    if how == 0 and content:
        at = int(rng.integers(len(content)))
        return content[:at] + b"\xff" + content[at + 1 :]
    if how == 1:
        return content[: len(content) // 2]
    if how == 2:
        return one(rng, _odd.NAMES).encode()
    return rng.bytes(len(content))


def _encoded(field: tuple[int, int, bytes]) -> bytes:
    number, kind, content = field
    return _varint(number << 3 | kind) + (_varint(len(content)) if kind == 2 else b"") + content
