"""Rules of LSTM, GRU and RNN: Lipschitz constants of one step from the gates, and a recurrence of them over the sequence.

A step's perturbation is bounded in the norms ``q`` of the hidden value's, ``p`` of the cell's and ``u`` of the input's:
``q_t ≤ Σ_s K_ts u_s`` with a lower triangular K of non-negative numbers, so all hidden values together have the constant
``‖K‖₂`` and the last one that of K's last row. The factors come from the slopes of the activations and from the ranges of the
values that they are multiplied with: an LSTM's cell is at most ``|c_t| ≤ f|c_{t−1}| + i·g``, so at most t with sigmoid gates and
tanh.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias, cast

import numpy as np

from onnxfim.graph.graph import Node
from onnxfim.graph.recurrent import DIRECTIONS, ActivationForm, activation_forms
from onnxfim.spectral.bound_rules import rule
from onnxfim.spectral.norms import matrix_norm, outward
from onnxfim.spectral.result import log10, plus, root_sum, times
from onnxfim.spectral.rules.layers import weight
from onnxfim.spectral.rules.pointwise import attribute
from onnxfim.spectral.site import Composition, Value, unbounded

_DEFAULTS = {"RNN": ("Tanh",), "GRU": ("Sigmoid", "Tanh"), "LSTM": ("Sigmoid", "Tanh", "Tanh")}
_GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
_LONG = 1024  # steps from which K is bounded by its Frobenius norm
_RESCALED = 1e100  # where rows are divided by it, and what is then lost is made up for by:
_FLOOR = 1e-200


@dataclass(frozen=True)
class _Range:
    """An activation on arguments of limited size: its largest slope, and the ends of its values."""

    slope: float
    low: float
    high: float

    @property
    def size(self) -> float:
        return max(abs(self.low), abs(self.high))


def _times(*factors: float) -> float:
    """A product in which zero outweighs infinity: what it multiplies is not there."""
    return 0.0 if 0.0 in factors else math.prod(factors)


def activation_range(form: ActivationForm, size: float) -> _Range:
    """The activation on ``[−size, size]``."""
    a, b, top = form.alpha, form.beta, math.inf
    if form.name == "sigmoid":
        half = math.tanh(size / 2) / 2  # σ(x) = ½ + ½ tanh(x/2)
        return _Range(0.25, 0.5 - half, 0.5 + half)
    if form.name in ("tanh", "scaledtanh"):
        a, b = (1.0, 1.0) if form.name == "tanh" else (a, b)
        top = abs(a) * math.tanh(_times(abs(b), size))
        return _Range(abs(a * b), -top, top)
    if form.name == "hardsigmoid":
        low, high = (min(max(b + s * _times(abs(a), size), 0.0), 1.0) for s in (-1, 1))
        return _Range(abs(a), low, high)
    if form.name == "affine":
        return _Range(abs(a), b - _times(abs(a), size), b + _times(abs(a), size))
    if form.name == "leakyrelu":
        return _Range(max(1.0, abs(a)), -_times(abs(a), size), _times(max(1.0, -a), size))
    if form.name == "elu":
        return _Range(max(1.0, abs(a)), -abs(a), max(size, abs(a)))
    if form.name == "softsign":
        top = 1.0 if size == math.inf else size / (1 + size)
        return _Range(1.0, -top, top)
    if form.name == "softplus":
        return _Range(1.0, 0.0, size + math.log(2) * (1 + 1e-12))
    jumps = form.name == "thresholdedrelu" and a != 0
    return _Range(math.inf if jumps else 1.0, 0.0, size)


@dataclass(frozen=True)
class _Gate:
    """One gate's weights: the norms of its matrices, and how far its argument reaches."""

    W: np.ndarray
    R: np.ndarray
    wb: np.ndarray
    rb: np.ndarray
    peephole: np.ndarray
    norms: tuple[float, float]

    @cached_property
    def sums(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Sums of the magnitudes in each row of W and R, and the peephole's."""
        return np.abs(self.W).sum(axis=1), np.abs(self.R).sum(axis=1), np.abs(self.peephole)

    def reach(self, x: float, h: float, c: float = 0.0) -> float:
        """The largest argument for inputs, hidden values and cells of these sizes."""
        rows = np.abs(self.wb) + np.abs(self.rb)
        for sums, size in zip(self.sums, (x, h, c), strict=True):
            if size == math.inf and sums.any():
                return math.inf
            rows = rows + (sums * size if math.isfinite(size) else 0.0)
        return outward(float(rows.max(initial=0.0)))


@dataclass(frozen=True)
class _Step:
    """What one step multiplies perturbations by: of the cell and the hidden value, by those of input, hidden value and cell.

    ``cell = (of u, of q, of p)``; ``hidden = (of u, of q, of the new cell, of the old cell)``.
    """

    cell: tuple[float, float, float]
    hidden: tuple[float, float, float, float]
    h: float
    c: float


#: A step from the sizes of the hidden value and the cell before it.
Advance: TypeAlias = "Callable[[float, float], _Step]"


def _gates(node: Node, parts: Sequence[np.ndarray], gates: int) -> list[_Gate]:
    """The gates of one direction, from W (gH, I), R (gH, H), B (2gH,) and P (3H,)."""
    W, R, B, P = parts
    H = R.shape[1]
    order = {"LSTM": (0, 2, 1)}.get(node.op, ())  # peepholes of i, o and f; the gates stand as i, o, f, c
    found = []
    for k in range(gates):
        rows = slice(k * H, (k + 1) * H)
        place = (0, 1, 2)[k] if order and k < 3 else None
        peephole = P[place * H : (place + 1) * H] if place is not None and P.size else np.zeros(H)
        norms = (matrix_norm(W[rows]).value, matrix_norm(R[rows]).value)
        found.append(_Gate(W[rows], R[rows], B[rows], B[gates * H :][rows], peephole, norms))
    return found


def _stacked(gates: Sequence[_Gate]) -> tuple[float, float]:
    """Norms of the gates' matrices one below another."""
    return matrix_norm(np.concatenate([g.W for g in gates])).value, matrix_norm(np.concatenate([g.R for g in gates])).value


def _joint(scales: Sequence[float], gates: Sequence[_Gate], stacked: Sequence[float], which: int) -> float:
    """Norm of ``Σ D_k M_k`` for diagonal matrices of entries up to ``scales``: triangle inequality or, row by row, Cauchy's."""
    triangle = sum(_times(a, g.norms[which]) for a, g in zip(scales, gates, strict=True))
    return min(triangle, _times(math.hypot(*scales), stacked[which])) if stacked[which] else triangle


def _lstm(node: Node, gates: list[_Gate], forms: Sequence[ActivationForm], x: float, limit: float) -> Advance:
    i, o, f, g = gates
    coupled = bool(node.attributes.get("input_forget", 0))
    inner = [i, g] if coupled else [i, f, g]
    stacked = _stacked(inner)

    def advance(h: float, c: float) -> _Step:
        in_, forget = (activation_range(forms[0], min(gate.reach(x, h, c), limit)) for gate in (i, f))
        new = activation_range(forms[1], min(g.reach(x, h), limit))
        if coupled:
            forget = _Range(in_.slope, 1 - in_.high, 1 - in_.low)
        reach = outward(_times(forget.size, c) + _times(in_.size, new.size))
        out = activation_range(forms[0], min(o.reach(x, h, reach), limit))
        seen = activation_range(forms[2], reach)
        # ∂c = f∂c + c∂f + g∂i + i∂g; with f = 1 − i the slopes of i meet g − c
        on_in = _times(in_.slope, new.size + c) if coupled else _times(in_.slope, new.size)
        scales = [on_in, _times(in_.size, new.slope)] if coupled else [on_in, _times(forget.slope, c), _times(in_.size, new.slope)]
        peep = _times(on_in, float(np.abs(i.peephole).max(initial=0.0)))
        peep += 0.0 if coupled else _times(scales[1], float(np.abs(f.peephole).max(initial=0.0)))
        cell = (_joint(scales, inner, stacked, 0), _joint(scales, inner, stacked, 1), forget.size + peep)
        on_out = _times(out.slope, seen.size)
        of_cell = _times(out.size, seen.slope) + _times(on_out, float(np.abs(o.peephole).max(initial=0.0)))
        hidden = (_times(on_out, o.norms[0]), _times(on_out, o.norms[1]), of_cell, 0.0)
        return _Step(cell, hidden, outward(_times(out.size, seen.size)), reach)

    return advance


def _gru(node: Node, gates: list[_Gate], forms: Sequence[ActivationForm], x: float, limit: float) -> Advance:
    z, r, n = gates
    after = bool(node.attributes.get("linear_before_reset", 0))
    (wz, rz), (wr, rr), (wn, rn) = (g.norms for g in gates)

    def advance(h: float, c: float) -> _Step:
        update, reset = (activation_range(forms[0], min(gate.reach(x, h), limit)) for gate in (z, r))
        if after:  # n = g(W x + r ⊙ (R h + b)): ∂ of the product is r ⊙ R∂h + (R h + b) ⊙ ∂r
            inner = np.abs(n.rb) + (n.sums[1] * h if math.isfinite(h) else 0.0)
            within = outward(float(inner.max(initial=0.0))) if math.isfinite(h) or not n.R.any() else math.inf
            reach = _Gate(n.W, np.zeros_like(n.R), n.wb, np.zeros_like(n.rb), n.peephole, n.norms).reach(x, 0.0)
            reach += _times(reset.size, within)
            of_u, of_q = _times(within, reset.slope, wr), _times(reset.size, rn) + _times(within, reset.slope, rr)
        else:  # n = g(W x + R (r ⊙ h) + b)
            reach = n.reach(x, _times(reset.size, h))
            of_u, of_q = _times(rn, h, reset.slope, wr), _times(rn, reset.size + _times(h, reset.slope, rr))
        new = activation_range(forms[1], min(reach, limit))
        of_u, of_q = _times(new.slope, wn + of_u), _times(new.slope, of_q)
        kept, taken = update.size, max(abs(1 - update.low), abs(1 - update.high))
        convex = update.low >= 0 and update.high <= 1
        # ∂h = (1 − z)∂n + z∂h + (h − n)∂z: of a convex mixture, entry by entry, the norm is at most that of both side by side
        mixed = min(math.hypot(of_q, 1.0), _times(taken, of_q) + kept) if convex else _times(taken, of_q) + kept
        apart = _times(update.slope, h + new.size)
        hidden = (_times(taken, of_u) + _times(apart, wz), mixed + _times(apart, rz), 0.0, 0.0)
        size = max(h, new.size) if convex else outward(_times(taken, new.size) + _times(kept, h))
        return _Step((0.0, 0.0, 0.0), hidden, size, c)

    return advance


def _rnn(node: Node, gates: list[_Gate], forms: Sequence[ActivationForm], x: float, limit: float) -> Advance:
    (gate,) = gates

    def advance(h: float, c: float) -> _Step:
        found = activation_range(forms[0], min(gate.reach(x, h), limit))
        hidden = (_times(found.slope, gate.norms[0]), _times(found.slope, gate.norms[1]), 0.0, 0.0)
        return _Step((0.0, 0.0, 0.0), hidden, found.size, c)

    return advance


_ADVANCES: dict[str, Callable[[Node, list[_Gate], Sequence[ActivationForm], float, float], Advance]] = {
    "LSTM": _lstm, "GRU": _gru, "RNN": _rnn,
}  # fmt: skip


@dataclass(frozen=True)
class _Run:
    """One direction's constants in log10, by what is perturbed (inputs, initial hidden value, initial cell), and sizes."""

    all_hidden: tuple[float, float, float]
    last_hidden: tuple[float, float, float]
    last_cell: tuple[float, float, float]
    h: float
    c: float


def _run(advance: Advance, steps: int, h: float, c: float, *, cut: bool) -> _Run:
    """The recurrence over a sequence; ``cut`` where it may end before its last step."""
    p, q = np.zeros(steps + 2), np.zeros(steps + 2)  # by inputs, the initial hidden value and the initial cell
    q[steps], p[steps + 1] = 1.0, 1.0
    scale, rows, cells = 0.0, list[tuple[np.ndarray, float]](), list[tuple[np.ndarray, float]]()
    top_h, top_c = h, c
    for t in range(steps):
        step = advance(h, c)
        if not all(map(math.isfinite, (*step.cell, *step.hidden))):
            endless = (math.inf,) * 3
            return _Run(endless, endless, endless, math.inf, math.inf)
        unit = np.zeros(steps + 2)
        unit[t] = 10.0**-scale if scale < 290 else _FLOOR
        new = step.cell[2] * p + step.cell[1] * q + step.cell[0] * unit
        q = step.hidden[2] * new + step.hidden[1] * q + step.hidden[0] * unit
        p, h, c = new, step.h, step.c
        top_h, top_c = max(top_h, h), max(top_c, c)
        if max(float(p.max()), float(q.max())) > _RESCALED:
            p, q, scale = p / _RESCALED + _FLOOR, q / _RESCALED + _FLOOR, scale + 100.0
        rows.append((q, scale))
        cells.append((p, scale))
    ends = rows if cut else rows[-1:], cells if cut else cells[-1:]
    begun = 0.0 if cut else -math.inf  # a sequence of no steps ends where it begins, or at zero

    def lasting(found: Sequence[tuple[np.ndarray, float]], own: int) -> tuple[float, float, float]:
        least = [begun if k == own else -math.inf for k in range(3)]
        columns = (slice(0, steps), slice(steps, steps + 1), slice(steps + 1, None))
        logs = (max(a, *(_log_norm(v[k], s) for v, s in found)) for k, a in zip(columns, least, strict=True))
        return cast("tuple[float, float, float]", tuple(logs))

    return _Run(_together(rows, steps), lasting(ends[0], 1), lasting(ends[1], 2), top_h, top_c)


def _log_norm(values: np.ndarray, scale: float) -> float:
    norm = float(np.linalg.norm(np.atleast_1d(values)))
    return -math.inf if norm == 0 else log10(outward(norm)) + scale


def _together(rows: Sequence[tuple[np.ndarray, float]], steps: int) -> tuple[float, float, float]:
    """Norms of all rows: as a matrix by the inputs, as columns by the initial states."""
    top = max(s for _, s in rows)
    K = np.stack([v * 10.0 ** max(s - top, -300.0) for v, s in rows])
    inputs = K[:, :steps]
    norm = matrix_norm(inputs).value if steps <= _LONG else outward(float(np.linalg.norm(inputs)))
    return (log10(norm) + top, _log_norm(K[:, steps], top), _log_norm(K[:, steps + 1], top))


@rule("LSTM", "GRU", "RNN")
def _recurrent(ctx: Composition, node: Node) -> Value | tuple[Value, ...]:
    """All outputs: every hidden value, the last one, and an LSTM's last cell."""
    if any(i < len(node.inputs) and ctx.varying(node.inputs[i]) for i in (1, 2, 3, 7)) or not ctx.varying(node.inputs[0]):
        known = "its weights vary with the input" if ctx.varying(node.inputs[0]) else "only its initial state varies"
        return _none(ctx, node, f"{known}, which has no rule")
    W, R = weight(ctx, node, 1), weight(ctx, node, 2)
    if len(node.inputs) > 4 and ctx.varying(node.inputs[4]):
        return _none(ctx, node, "the lengths of its sequences vary with the input, and its outputs jump there")
    shape = ctx.shape(node.inputs[0])
    time = 1 if node.attributes.get("layout", 0) else 0
    steps = shape[time] if shape is not None and len(shape) == 3 else None
    if W is None or R is None or W.ndim != 3 or R.ndim != 3:
        return _none(ctx, node, "its weights are not known before the model runs")
    if steps is None or steps < 1:
        return _none(ctx, node, "the number of its steps is not known before the model runs, and its constant grows with it")
    directions, gates = len(W), _GATES[node.op]
    forms = activation_forms(
        _strings(node.attributes.get("activations")), _numbers(node.attributes.get("activation_alpha")),
        _numbers(node.attributes.get("activation_beta")), _DEFAULTS[node.op], directions,
    )  # fmt: skip
    if forms is None or len(DIRECTIONS.get(str(node.attributes.get("direction", "forward")).lower(), ())) != directions:
        return _none(ctx, node, "its direction or its activations are not those of the operator")
    H, each = R.shape[2], len(_DEFAULTS[node.op])
    B, P = weight(ctx, node, 3), weight(ctx, node, 7)
    if (B is None and len(node.inputs) > 3 and node.inputs[3]) or (P is None and len(node.inputs) > 7 and node.inputs[7]):
        return _none(ctx, node, "its biases or peepholes are not known before the model runs")
    limit = attribute(node, "clip", 0.0)
    x = ctx.values[node.inputs[0]]
    cut = len(node.inputs) > 4 and bool(node.inputs[4])
    states = [_initial(ctx, node, 5), _initial(ctx, node, 6)]
    runs = []
    for d in range(directions):
        bias = B[d] if B is not None else np.zeros(2 * gates * H)
        parts = (W[d], R[d], bias, P[d] if P is not None else np.zeros(0))
        mine = forms[d * each : (d + 1) * each]
        advance = _ADVANCES[node.op](node, _gates(node, parts, gates), mine, x.magnitude, limit if limit > 0 else math.inf)
        runs.append(_run(advance, steps, states[0][0], states[1][0], cut=cut))
    parents = [x, *(v for _, v in states if v is not None)]
    logs = [ctx.log(x), *(-math.inf if v is None else ctx.log(v) for _, v in states)]
    results = []
    for output, name in enumerate(node.outputs):
        if not name:
            continue
        found = [(r.all_hidden, r.last_hidden, r.last_cell)[output] for r in runs]
        log = root_sum(*(plus(*(_through(k, by) for k, by in zip(r, logs, strict=True))) for r in found))
        size = max((r.h, r.h, r.c)[output] for r in runs)
        if log == math.inf and all(ctx.log(p) < math.inf for p in parents):
            results.append(ctx.fresh(node, log, reason=unbounded(node, _why(node, forms)), output=output))
            continue
        if name not in ctx.flow.graph.consumers and all(name != o.name for o in ctx.flow.graph.outputs):
            continue
        ctx.record(
            node, root_sum(*(r[0] for r in found)), kind="recurrent", method="gates, step by step", note=f"{steps} steps",
            shape=W.shape,
        )  # fmt: skip
        results.append(ctx.fresh(node, log, *parents, output=output, low=-size, high=size))
    return tuple(results)


def _through(constant: float, log: float) -> float:
    return -math.inf if -math.inf in (constant, log) else times(constant, log)


def _why(node: Node, forms: Sequence[ActivationForm]) -> str:
    names = ", ".join(sorted({f.name for f in forms}))
    return (
        f"products of its gates ({names}) with values that are not bounded have no global Lipschitz constant"
        if node.op != "RNN" else f"an activation among {names} jumps"
    )  # fmt: skip


def _none(ctx: Composition, node: Node, why: str) -> tuple[Value, ...]:
    return tuple(ctx.fresh(node, math.inf, reason=unbounded(node, why), output=k) for k, o in enumerate(node.outputs) if o)


def _initial(ctx: Composition, node: Node, index: int) -> tuple[float, Value | None]:
    """How large an initial state is, and its value where it varies."""
    name = node.inputs[index] if index < len(node.inputs) else ""
    if not name:
        return 0.0, None
    if ctx.varying(name):
        return ctx.values[name].magnitude, ctx.values[name]
    known = ctx.constant(name)
    return (math.inf if known is None else float(np.abs(known.astype(np.float64)).max(initial=0.0))), None


def _strings(value: object) -> tuple[str, ...]:
    return tuple(str(v) for v in value) if isinstance(value, tuple) else ()


def _numbers(value: object) -> tuple[float, ...]:
    return tuple(float(v) for v in value) if isinstance(value, tuple) else ()
