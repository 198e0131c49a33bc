"""Write derivative graphs: Jᵀu, Jv and products with JJᵀ, as plain ONNX models."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Literal, TypeAlias

import numpy as np
import onnx
from onnx import TensorProto, helper

import onnxfim.gradients.rules  # noqa: F401 - fills the registry
from onnxfim.errors import ModelError
from onnxfim.gradients.derivative_rules import REFUSED, RULES, Cotangent, DerivativeRule, Pointwise, Scaled, Site, Stretch, refusal
from onnxfim.graph.emitter import Emitter
from onnxfim.graph.expand import told_unfit
from onnxfim.graph.graph import reads
from onnxfim.graph.lower import op_name
from onnxfim.graph.prepare import Prepared, prepare, pruned
from onnxfim.graph.reach import INDICES, STEPS, WHOLE
from onnxfim.graph.shapes import Batch, Shape

DerivativeKind: TypeAlias = Literal["vjp", "jvp", "gram"]
RESERVED = ("x", "u", "v", "z", "g", "w", "temperature")
_INT = np.dtype(np.int64)
_FLOATS = (TensorProto.FLOAT, TensorProto.DOUBLE)
_STATIC = ("Shape", "Size")
#: Rounding that stands for a real number, as a quantiser's does: refused, not taken as flat, for finite steps see its slope.
_ROUNDING = frozenset({"Round"})
_RANDOM = frozenset({
    "RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Bernoulli", "Multinomial",
})  # fmt: skip


@told_unfit
def derivative_graph(
    model: onnx.ModelProto,
    *,
    input_name: str,
    output_name: str,
    kind: DerivativeKind,
    sample_shape: Sequence[int] | None = None,
    dimensions: Mapping[str, int] | None = None,
    surrogate: Literal["clip"] | None = None,
    base_dir: str | os.PathLike[str] = ".",
) -> onnx.ModelProto:
    """Return the derivative of ``output_name`` (logits, ``(N, K)``) by ``input_name`` (``(N, *shape)``) as a model.

    N samples and S seeds are free. Inputs and outputs by ``kind``, besides the model's other inputs under their names:

    - ``vjp``: ``x (N, *shape)``, ``u (S, N, K)`` → ``z (N, K)``, ``g = Jᵀu (S, N, *shape)``
    - ``jvp``: ``x``, ``v (S, N, *shape)`` → ``z``, ``w = Jv (S, N, K)``
    - ``gram``: ``x``, ``u`` → ``z``, ``g = Jᵀu``, ``w = J Jᵀ u (S, N, K)``

    Args:
        model: The model; it is not changed. External data keeps its references.
        input_name: A graph input, or any inner float value (which then becomes the input x).
        output_name: The value to differentiate; axes behind the first are flattened to K.
        kind: Which derivative.
        sample_shape: Shape of one sample, where the file leaves dimensions of the graph input open.
        dimensions: Sizes for other symbolic dimensions by their name.
        surrogate: "clip" differentiates the clip surrogate of a quantised graph instead of refusing it.
        base_dir: Folder of external data.

    Raises:
        ModelError: a malformed graph, open dimensions, or an output that does not depend on the input.
        UnsupportedOperator: an operator on the way has no derivative, or none that is known here.
    """
    prepared = prepare(
        model, input_name=input_name, output_name=output_name, reserved=RESERVED,
        sample_shape=sample_shape, dimensions=dimensions, surrogate=surrogate, base_dir=base_dir,
    )  # fmt: skip
    return DerivativeWriter(prepared).build(kind)


class DerivativeWriter:
    """One derivative model being written."""

    def __init__(self, prepared: Prepared) -> None:
        # Rules ask nodes for further outputs: what was prepared serves other derivatives too.
        self.graph = prepared = replace(prepared, nodes=tuple(map(deepcopy, prepared.nodes)))
        self.trace = prepared.trace
        taken = {
            *RESERVED,
            prepared.x,
            prepared.z,
            *(t.name for t in prepared.initializers),
            *(i.name for i in prepared.inputs),
        }
        taken.update(o for n in prepared.nodes for o in n.output)
        self.emitter = Emitter(taken)
        self.varying, self.rounded = _varying(prepared)
        self.path = self._path()

    def _path(self) -> list[onnx.NodeProto]:
        """Nodes that carry the derivative, each known to have a rule."""
        for node in pruned(self.graph.nodes, [self.graph.z]):
            if op_name(node) in _RANDOM:
                raise refusal(node, op_name(node), self.graph.opset, "it is random, so no derivative of it can be tested")
        if self.graph.z not in self.varying:
            self._refuse_steps()
            raise ModelError(
                f"output {self.graph.output_name!r} does not depend on {self.graph.input_name!r}: "
                "there is nothing to differentiate. Name another output, or another input."
            )
        read = self.varying | self.rounded
        path = [n for n in self.graph.nodes if self.varying.intersection(n.output) and read.intersection(reads(n))]
        path = pruned(path, [self.graph.z], stop=[self.graph.x])
        if not path:
            raise ModelError(
                f"output {self.graph.output_name!r} is the input itself: there is nothing to differentiate. Name another output."
            )
        for node in path:
            op = op_name(node)
            if op == "Cast" and node.input[0] in self.rounded:
                reason = "it reads a number rounded to an integer: the true derivative is zero almost everywhere"
                raise refusal(node, op, self.graph.opset, reason)
            if op not in RULES:
                reason = self.graph.kept.get(node.output[0]) or REFUSED.get(op, "this operator has no derivative rule")
                raise refusal(node, op, self.graph.opset, reason)
            if any(o in self.varying and self.trace.elem.get(o) not in _FLOATS for o in node.output if o) and op != "Cast":
                raise refusal(node, op, self.graph.opset, "it computes with integers that depend on the differentiated input")
        for name, label in ((self.graph.x, self.graph.input_name), (self.graph.z, self.graph.output_name)):
            if self.trace.elem.get(name) not in _FLOATS:
                raise ModelError(f"value {label!r} is not a tensor of floating point numbers; only those can be differentiated.")
        return path

    def _refuse_steps(self) -> None:
        """Name the first node that every slope ends in, where the output depends on the input by steps alone."""
        found = {self.graph.x}
        needed = pruned(self.graph.nodes, [self.graph.z], stop=[self.graph.x])
        for node in needed:
            if found.isdisjoint(reads(node)) or op_name(node) in _STATIC:
                continue
            found.update(o for o in node.output if o)
            op = op_name(node)
            if self.varying.isdisjoint(node.output) and not self.varying.isdisjoint(reads(node)):
                raise refusal(node, op, self.graph.opset, REFUSED.get(op, "the true derivative is zero almost everywhere"))

    def build(self, kind: DerivativeKind) -> onnx.ModelProto:
        x_shape = self._rows(self.graph.x, self.graph.input_name)
        z_shape = self._rows(self.graph.z, self.graph.output_name)
        elem_x, elem_z = self.trace.elem[self.graph.x], self.trace.elem[self.graph.z]
        classes = 1
        for d in z_shape[1:]:
            classes *= _number(d)
        n_x = ["N", *(_number(d) for d in x_shape[1:])]
        info = helper.make_tensor_value_info
        inputs = [info("x", elem_x, n_x)]
        outputs = [info("z", elem_z, ["N", classes])]
        e = self.emitter
        z = e.emit("Reshape", self.graph.z, e.operand([-1, classes], _INT)) if len(z_shape) != 2 else self.graph.z
        if kind == "jvp":
            inputs.append(info("v", elem_x, ["S", *n_x]))
            outputs.append(info("w", elem_z, ["S", "N", classes]))
            results = {"w": self.jvp("v", seeds=self._seeds("v"), classes=classes)}
        else:
            seeds = self._seeds("u")
            inputs.append(info("u", elem_z, ["S", "N", classes]))
            outputs.append(info("g", elem_x, ["S", *n_x]))
            results = {"g": self.vjp("u", seeds=seeds, z_shape=z_shape)}
            if kind == "gram":
                outputs.append(info("w", elem_z, ["S", "N", classes]))
                results["w"] = self.jvp(results["g"], seeds=seeds, classes=classes)
        results["z"] = z
        return self._model(inputs, outputs, results)

    def _rows(self, name: str, label: str) -> Shape:
        """Shape of a value whose first axis is the batch."""
        shape = self.trace.shapes.get(name)
        if not shape or shape[0] != Batch(1) or any(isinstance(d, Batch) for d in shape[1:]):
            raise ModelError(f"value {label!r}: expected the batch as first axis and known others, found {_written(shape)}.")
        return shape

    def _seeds(self, name: str) -> str:
        return self.emitter.emit("Shape", name, start=0, end=1)

    def _model(
        self, inputs: list[onnx.ValueInfoProto], outputs: list[onnx.ValueInfoProto], results: Mapping[str, str]
    ) -> onnx.ModelProto:
        x = self.graph.x
        nodes = [helper.make_node("Identity", ["x"], [x], name="x"), *self.graph.nodes, *self.emitter.nodes]
        nodes += [helper.make_node("Identity", [results[o.name]], [o.name], name=o.name) for o in outputs]
        nodes = pruned(nodes, [o.name for o in outputs])
        used = {r for n in nodes for r in reads(n)}
        model = onnx.ModelProto(ir_version=self.graph.ir_version, producer_name="onnxfim")
        model.opset_import.extend(self.graph.opset_imports)
        model.graph.name = "derivative"
        model.graph.node.extend(nodes)
        for i, node in enumerate(model.graph.node):
            node.name = f"{i}/{node.name}"  # the runtime wants them distinct, which files need not be
        model.graph.input.extend([*inputs, *self.graph.inputs])
        model.graph.output.extend(outputs)
        tensors = [*self.graph.initializers, *self.emitter.constants]
        model.graph.initializer.extend(t for t in tensors if t.name in used)
        return model

    # reverse and forward sweeps

    def site(self, node: onnx.NodeProto, seeds: str) -> Site:
        varies = tuple(i in self.varying for i in node.input)
        return Site(node, op_name(node), self.graph.opset, self.trace, self.emitter, seeds, varies)

    def vjp(self, u: str, *, seeds: str, z_shape: Shape) -> str:
        """Jᵀu for the cotangent ``u`` (S, N, K)."""
        if len(z_shape) != 2:
            u = self.emitter.emit("Reshape", u, self.emitter.operand([0, -1, *map(_number, z_shape[1:])], _INT))
        found: dict[str, list[Cotangent]] = {self.graph.z: [Scaled(u)]}
        for node in reversed(self.path):
            site = self.site(node, seeds)
            us = [self._joined(found.pop(o, []), site) for o in node.output]
            rule = RULES[site.op]
            back: dict[int, Cotangent]
            if isinstance(rule, DerivativeRule):
                given = [self.multiplied(s, site) if s else None for s in us]
                back = dict(rule.vjp(site, given)) if any(given) else {}
            else:
                back = self._pointwise_vjp(site, rule, us[0]) if us[0] else {}
            for i, g in back.items():
                if site.varies[i]:
                    found.setdefault(node.input[i], []).append(g)
        last = self.site(self.path[0], seeds)
        total = self._joined(found[self.graph.x], last)
        assert total is not None
        return self.multiplied(total, last)

    def _pointwise_vjp(self, site: Site, rule: Pointwise, u: Scaled) -> dict[int, Cotangent]:
        back: dict[int, Cotangent] = {}
        for i, factor in rule.partials(site).items():
            if not site.varies[i]:
                continue
            scaled = self._times(u, factor, site)
            dims, to = site.shape(site.y), site.shape(site.inputs[i])
            if dims != to:
                scaled = Scaled(site.unbroadcast(self.multiplied(scaled, site), dims, to))
            back[i] = scaled
        return back

    def jvp(self, v: str, *, seeds: str, classes: int) -> str:
        """Jv for the tangent ``v`` (S, N, *shape), as (S, N, K)."""
        found = self.tangents(v, seeds=seeds)
        last = self.site(self.path[-1], seeds)
        w = self.multiplied(found[self.graph.z], last)
        return w if last.rank(self.graph.z) == 2 else last.write("Reshape", w, [0, -1, classes])

    def tangents(self, v: str, *, seeds: str) -> dict[str, Scaled]:
        """Tangents (S, N, ...) of all values on the path, for the tangent ``v`` (S, N, *shape) of x."""
        found: dict[str, Scaled] = {self.graph.x: Scaled(v)}
        for node in self.path:
            site = self.site(node, seeds)
            vs = {i: found[name] for i, name in enumerate(node.input) if name in found}
            rule = RULES[site.op]
            if isinstance(rule, DerivativeRule):
                forth = rule.jvp(site, {i: self.multiplied(s, site) for i, s in vs.items()})
                found.update({o: Scaled(t) for o, t in zip(node.output, forth, strict=False) if o and t})
            else:
                found[node.output[0]] = self._pointwise_jvp(site, rule, vs)
        return found

    def _pointwise_jvp(self, site: Site, rule: Pointwise, vs: Mapping[int, Scaled]) -> Scaled:
        partials = rule.partials(site)
        out = site.shape(site.y)
        shapes = {i: site.shape(site.inputs[i]) for i in vs if i in partials}
        terms = {i: self._times(vs[i], partials[i], site) for i in shapes}
        if all(dims == out for dims in shapes.values()):
            joined = self._joined(list(terms.values()), site)
            assert joined is not None
            return joined
        total: str | None = None
        for i, term in terms.items():
            t = self._aligned(term, site, shapes[i], out)
            total = t if total is None else site.add(total, t)
        assert total is not None
        if out not in shapes.values():
            total = site.write("Expand", total, site.write("Concat", [1], site.write("Shape", site.y), axis=0))
        return Scaled(total)

    def _aligned(self, term: Scaled, site: Site, dims: Shape, out: Shape) -> str:
        """The tangent with its factor, axes inserted behind the seeds so that it broadcasts as the output does."""
        value = site.align(term.value, len(dims), len(out))
        return value if term.factor is None else site.mul(value, term.factor)

    def _times(self, t: Scaled, factor: str | float, site: Site) -> Scaled:
        if factor == 1.0:
            return t
        name = factor if isinstance(factor, str) else self.emitter.operand(factor, site.dtype)
        return Scaled(t.value, name if t.factor is None else site.mul(t.factor, name))

    def multiplied(self, t: Scaled, site: Site) -> str:
        return t.value if t.factor is None else site.mul(t.value, t.factor)

    def _joined(self, parts: Sequence[Cotangent], site: Site) -> Scaled | None:
        """Sum of cotangents; those of one value add their factors, which are of the size of one seed."""
        factors: dict[str, list[str | None]] = {}
        for p in (
            *(p for p in parts if not isinstance(p, Stretch)),
            *_end_to_end(site, [p for p in parts if isinstance(p, Stretch)]),
        ):
            given = p if isinstance(p, Scaled) else Scaled(p)
            factors.setdefault(given.value, []).append(given.factor)
        sums = [Scaled(value, self._added(given, site)) for value, given in factors.items()]
        if len(sums) < 2:
            return sums[0] if sums else None
        return Scaled(site.write("Sum", *(self.multiplied(p, site) for p in sums)))

    def _added(self, factors: Sequence[str | None], site: Site) -> str | None:
        if len(factors) == 1:
            return factors[0]
        total, *others = (self.emitter.operand(1.0, site.dtype) if f is None else f for f in factors)
        for other in others:
            total = site.add(total, other)
        return total


def _end_to_end(site: Site, placed: Sequence[Stretch]) -> list[str]:
    """The sum of cotangents of stretches, in as few terms as their overlaps allow.

    Stretches of one axis that do not overlap are concatenated, with zeros where none lies: one value is written where a sum of
    padded ones writes each at full size.
    """
    rows: list[list[Stretch]] = []
    for p in sorted(placed, key=lambda p: (p.axis, p.start)):
        row = next((r for r in rows if r[-1].axis == p.axis and r[-1].stop <= p.start), None)
        if row is None:
            rows.append([p])
        else:
            row.append(p)
    return [_row(site, row) for row in rows]


def _row(site: Site, row: Sequence[Stretch]) -> str:
    """Stretches of one axis in rising order as one value, zero elsewhere."""
    axis, rank, size = row[0].axis, row[0].rank, row[0].size
    before = [0] * rank
    before[axis] = row[0].start
    parts = []
    for p, until in zip(row, [*(q.start for q in row[1:]), size], strict=True):
        after = [0] * rank
        after[axis] = until - p.stop
        parts.append(site.pad(p.value, before, after))
        before = [0] * rank
    return parts[0] if len(parts) == 1 else site.write("Concat", *parts, axis=axis + 1)


def _written(shape: Shape | None) -> str:
    """A shape for people: N for the batch."""
    if shape is None:
        return "no known shape"
    return "(" + ", ".join((f"{d.factor}N" if d.factor > 1 else "N") if isinstance(d, Batch) else str(d) for d in shape) + ")"


def _number(d: object) -> int:
    assert isinstance(d, int)
    return d


def _varying(prepared: Prepared) -> tuple[set[str], set[str]]:
    """Values that a slope of x reaches, and numbers rounded to integers.

    Results of steps have no slope, nor have positions and comparisons. A number that was rounded and is a float again stands for a
    real one: it counts, and is refused.
    """
    elem = prepared.trace.elem
    varying, rounded = {prepared.x}, set[str]()
    for node in prepared.nodes:
        op, read = op_name(node), set(reads(node))
        if op in STEPS - _ROUNDING or (varying | rounded).isdisjoint(read):
            continue
        slopes = not varying.isdisjoint(read)
        quantised = any(elem.get(r) in WHOLE for r in varying.intersection(read))  # moved between a quantiser and its inverse
        for k, o in enumerate(node.output):
            kind = elem.get(o)
            if not o or kind == TensorProto.BOOL or k in INDICES.get(op, ()):
                continue
            if kind in WHOLE and not (slopes and (op in REFUSED or quantised)):
                rounded.add(o)
            elif slopes or op == "Cast":
                varying.add(o)
    return varying, rounded
