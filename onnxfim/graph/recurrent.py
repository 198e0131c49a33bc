"""Write LSTM, GRU and RNN out, step by step over a sequence of known length.

The product of the inputs with their weights is one for all steps; a step is then a few nodes on values (1, batch, hidden). Gates,
their order and every attribute are those of the operators' definitions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias, cast

import numpy as np

from onnxfim.graph.lower import Scratch, lowering
from onnxfim.graph.subgraphs import too_long

#: State of a step: the hidden value and the cell's; None where it is zero.
State: TypeAlias = "tuple[str | None, str | None]"
Activation: TypeAlias = "Callable[[str], str]"
DIRECTIONS = {"forward": (False,), "reverse": (True,), "bidirectional": (False, True)}
#: alpha and beta of activations that have them, where none are given: those of the operator of that name, or ONNX Runtime's zero.
_ALPHA = {"affine": 0.0, "leakyrelu": 0.01, "thresholdedrelu": 1.0, "scaledtanh": 0.0, "hardsigmoid": 0.2, "elu": 1.0}
_BETA = {"affine": 0.0, "scaledtanh": 0.0, "hardsigmoid": 0.5}
_PLAIN = {"relu": "Relu", "tanh": "Tanh", "sigmoid": "Sigmoid", "softsign": "Softsign", "softplus": "Softplus"}
_WITH_ALPHA = {"leakyrelu": "LeakyRelu", "thresholdedrelu": "ThresholdedRelu", "elu": "Elu"}


@dataclass(frozen=True)
class ActivationForm:
    """An activation function of a recurrent operator: its name in lower case, alpha and beta."""

    name: str
    alpha: float
    beta: float


def activation_forms(
    names: Sequence[str], alphas: Sequence[float], betas: Sequence[float], default: Sequence[str], directions: int
) -> list[ActivationForm] | None:
    """Activation functions of all directions in order; each takes the next alpha and beta if it has them. None for unknown ones."""
    given = [n.lower() for n in (names or [*default] * directions)]
    left = {"alpha": list(alphas), "beta": list(betas)}
    forms = []
    for name in given:
        if name not in _PLAIN and name not in _ALPHA:
            return None
        alpha = left["alpha"].pop(0) if name in _ALPHA and left["alpha"] else _ALPHA.get(name, 0.0)
        beta = left["beta"].pop(0) if name in _BETA and left["beta"] else _BETA.get(name, 0.0)
        forms.append(ActivationForm(name, float(alpha), float(beta)))
    return forms if len(forms) == len(default) * directions else None


class _Sequence:
    """A recurrent node being written: its inputs with the time in front, and what all its steps share."""

    def __init__(self, s: Scratch, *, gates: int, activations: Sequence[str]) -> None:
        self.s, self.gates = s, gates
        self.batch_first = s.integer("layout", 0) == 1
        shape, weight = s.shape(0), s.shape(2)
        if len(shape) != 3 or len(weight) != 3:
            raise s.refuse("its inputs have not three axes")
        self.hidden = weight[2]
        self.steps = shape[1 if self.batch_first else 0]
        direction = str(s.attributes.get("direction", "forward")).lower()
        if direction not in DIRECTIONS or self.steps < 1:
            raise s.refuse(f"direction {direction!r} over {self.steps} steps")
        self.reversed = DIRECTIONS[direction]
        names = [
            n.decode() if isinstance(n, bytes) else n for n in cast("Sequence[str | bytes]", s.attributes.get("activations", ()))
        ]
        forms = activation_forms(
            names, cast("Sequence[float]", s.attributes.get("activation_alpha", ())),
            cast("Sequence[float]", s.attributes.get("activation_beta", ())), activations, len(self.reversed),
        )  # fmt: skip
        if forms is None:
            raise s.refuse(f"its activations {names} are not those of the operator")
        self.forms = [forms[i : i + len(activations)] for i in range(0, len(forms), len(activations))]
        self.clip = s.real("clip", 0.0)
        self.x = s.write("Transpose", s.inputs[0], perm=[1, 0, 2]) if self.batch_first else s.inputs[0]
        self.length, self.masks = self._lengths()

    def _lengths(self) -> tuple[int, tuple[str, ...]]:
        """Steps that are taken, and for each which sequences still run, (1, batch, 1), where that differs."""
        s, name = self.s, self.s.get(4)
        if not name:
            return self.steps, ()
        known = s.found.values.get(name)
        if known is not None and known.size and (known == known.reshape(-1)[0]).all() and 1 <= known.reshape(-1)[0] <= self.steps:
            return int(known.reshape(-1)[0]), ()
        lengths = s.write("Unsqueeze", s.write("Cast", name, to=7), [0, 2])
        running = s.write("Less", np.arange(self.steps, dtype=np.int64).reshape(-1, 1, 1), lengths)
        return self.steps, s.split(running, [1] * self.steps, axis=0)

    def weights(self, index: int, direction: int, *, turned: bool = True) -> str | None:
        """One direction of an input, as (in, gates · hidden) where it is a matrix."""
        if not self.s.get(index):
            return None
        part = self.s.write("Gather", self.s.inputs[index], np.asarray(direction, np.int64), axis=0)
        return self.s.write("Transpose", part, perm=[1, 0]) if turned else part

    def biases(self, direction: int) -> tuple[str | None, str | None]:
        """The biases of the inputs' and of the state's products, (gates · hidden,)."""
        both = self.weights(3, direction, turned=False)
        if both is None:
            return None, None
        wide = self.gates * self.hidden
        first, second = self.s.split(both, [wide, wide], axis=0)
        return first, second

    def state(self, index: int, direction: int) -> str | None:
        """An initial state (1, batch, hidden); one that is the same in every row has one row, zero is None."""
        s = self.s
        if not s.get(index):
            return None
        axis = 1 if self.batch_first else 0
        known = s.found.values.get(s.inputs[index])
        if known is not None:
            mine = np.take(known, [direction], axis=axis)
            mine = mine.transpose(1, 0, 2) if self.batch_first else mine
            if not mine.any():
                return None
            if (mine == mine[:, :1]).all():
                return s.write("Identity", mine[:, :1])
        part = s.write("Gather", s.inputs[index], [direction], axis=axis)
        return s.write("Transpose", part, perm=[1, 0, 2]) if self.batch_first else part

    def products(self, direction: int, bias: str | None) -> str:
        """The inputs' products with their weights for all steps, (steps, batch, gates · hidden)."""
        w = self.weights(1, direction)
        assert w is not None
        product = self.s.write("MatMul", self.x, w)
        return product if bias is None else self.s.write("Add", product, bias)

    def per_step(self, value: str) -> tuple[str, ...]:
        return self.s.split(value, [1] * self.steps, axis=0)

    def activation(self, direction: int, which: int, *, clipped: bool = True) -> Activation:
        """An activation function as nodes; its argument is clipped first where the operator says so."""
        s, form = self.s, self.forms[direction][which]

        def written(t: str) -> str:
            if self.clip > 0 and clipped:
                t = s.write("Clip", t, -self.clip, self.clip)
            if form.name in _PLAIN:
                return s.write(_PLAIN[form.name], t)
            if form.name in _WITH_ALPHA:
                return s.write(_WITH_ALPHA[form.name], t, alpha=form.alpha)
            if form.name == "hardsigmoid":
                return s.write("HardSigmoid", t, alpha=form.alpha, beta=form.beta)
            if form.name == "affine":
                return s.write("Add", s.write("Mul", t, form.alpha), form.beta)
            return s.write("Mul", s.write("Tanh", s.write("Mul", t, form.beta)), form.alpha)

        return written

    def run(self, direction: int, first: State, step: Callable[[int, State], State]) -> tuple[str, State]:
        """All steps of one direction.

        Returns:
            The hidden values in order of time, (steps, 1, batch, hidden), and the last state.
        """
        s = self.s
        order = range(self.length)[::-1] if self.reversed[direction] else range(self.length)
        before = len(s.emitter.nodes)
        state, outputs = first, dict[int, str]()
        for done, t in enumerate(order, start=1):
            new = step(t, state)
            if self.masks:
                outputs[t] = s.write("Where", self.masks[t], new[0], 0.0)
                state = tuple(  # type: ignore[assignment]
                    None if n is None else s.write("Where", self.masks[t], n, 0.0 if o is None else o)
                    for n, o in zip(new, state, strict=True)
                )
            else:
                outputs[t], state = cast("str", new[0]), new
            written = len(s.emitter.nodes) - before
            if (why := too_long(s.found, f"{self.length:,} steps", written * self.length // done)) is not None:
                raise s.refuse(why)
        s.found.unrolled += len(s.emitter.nodes) - before
        if self.masks:  # ONNX Runtime ends a sequence of no steps in zero, whatever it begins with
            state = tuple(None if n is None else s.write("Where", self.masks[0], n, 0.0) for n in state)  # type: ignore[assignment]
        return self._together(outputs), state

    def _together(self, outputs: dict[int, str]) -> str:
        s = self.s
        if not self.s.node.output[0]:
            return ""
        y = s.write("Concat", *(outputs[t] for t in range(self.length)), axis=0)
        if self.length < self.steps:
            y = s.write("Pad", y, [0, 0, 0, self.steps - self.length, 0, 0], 0.0)
        return s.write("Unsqueeze", y, [1])

    def ended(self, found: Sequence[tuple[str, State]]) -> str:
        """Enter the last states of all directions as further outputs; return the first output."""
        s = self.s
        for output in (1, 2):
            if len(s.node.output) > output and s.node.output[output]:
                last = [cast("str", state[output - 1]) for _, state in found]
                joined = s.write("Concat", *last, axis=0) if len(last) > 1 else last[0]
                s.further[output] = s.write("Transpose", joined, perm=[1, 0, 2]) if self.batch_first else joined
        if not s.node.output[0]:
            return ""
        y = s.write("Concat", *(y for y, _ in found), axis=1) if len(found) > 1 else found[0][0]
        return s.write("Transpose", y, perm=[2, 0, 1, 3]) if self.batch_first else y


def _plus(s: Scratch, *terms: str | None) -> str:
    """The sum of the terms that there are; at least one is."""
    total: str | None = None
    for term in terms:
        if term is not None:
            total = term if total is None else s.write("Add", total, term)
    assert total is not None
    return total


def _times(s: Scratch, a: str | None, b: str | None) -> str | None:
    return None if a is None or b is None else s.write("Mul", a, b)


@lowering("RNN")
def _rnn(s: Scratch) -> str:
    n = _Sequence(s, gates=1, activations=("Tanh",))
    found = []
    for d in range(len(n.reversed)):
        bias, r = n.biases(d), n.weights(2, d)
        wx = n.per_step(n.products(d, None if bias[0] is None else _plus(s, *bias)))
        f = n.activation(d, 0)

        def step(t: int, state: State, wx: Sequence[str] = wx, r: str | None = r, f: Activation = f) -> State:
            h = state[0]
            return f(_plus(s, wx[t], None if h is None else s.write("MatMul", h, r))), None

        found.append(n.run(d, (n.state(5, d), None), step))
    return n.ended(found)


@lowering("GRU")
def _gru(s: Scratch) -> str:
    n = _Sequence(s, gates=3, activations=("Sigmoid", "Tanh"))
    found = []
    for d in range(len(n.reversed)):
        found.append(n.run(d, (n.state(5, d), None), _gru_step(n, d)))
    return n.ended(found)


def _gru_step(n: _Sequence, d: int) -> Callable[[int, State], State]:
    """Gates z and r from one product; the reset gate before (or, with linear_before_reset, after) that of the candidate."""
    s, H = n.s, n.hidden
    f, g = n.activation(d, 0), n.activation(d, 1)
    wb, rb = n.biases(d)
    r = n.weights(2, d)
    assert r is not None
    after = s.integer("linear_before_reset", 0) != 0
    rb_gates: str | None = None
    rb_candidate: str | None = None
    if rb is not None:
        rb_gates, rb_candidate = s.split(rb, [2 * H, H], axis=0)
    gates, candidates = s.split(n.products(d, wb), [2 * H, H], axis=2)
    gates = _plus(s, gates, rb_gates)
    if not after:
        candidates = _plus(s, candidates, rb_candidate)
        r_gates, r_candidate = s.split(r, [2 * H, H], axis=1)
    wx_gates, wx_candidate = n.per_step(gates), n.per_step(candidates)

    def step(t: int, state: State) -> State:
        h = state[0]
        of_candidate: str | None = None
        of_gates: str | None = None
        if h is not None and after:
            of_gates, of_candidate = s.split(s.write("MatMul", h, r), [2 * H, H], axis=2)
        elif h is not None:
            of_gates = s.write("MatMul", h, r_gates)
        z, reset = s.split(f(_plus(s, wx_gates[t], of_gates)), [H, H], axis=2)
        if after:
            inner = None if of_candidate is None and rb_candidate is None else _plus(s, of_candidate, rb_candidate)
            of_candidate = _times(s, reset, inner)
        elif h is not None:
            of_candidate = s.write("MatMul", s.write("Mul", reset, h), r_candidate)
        new = g(_plus(s, wx_candidate[t], of_candidate))
        kept = s.write("Mul", z, s.write("Neg", new) if h is None else s.write("Sub", h, new))
        return s.write("Add", new, kept), None

    return step


@lowering("LSTM")
def _lstm(s: Scratch) -> str:
    n = _Sequence(s, gates=4, activations=("Sigmoid", "Tanh", "Tanh"))
    found = []
    for d in range(len(n.reversed)):
        found.append(n.run(d, (n.state(5, d), n.state(6, d)), _lstm_step(n, d)))
    return n.ended(found)


def _lstm_step(n: _Sequence, d: int) -> Callable[[int, State], State]:
    """Gates i, o and f at once where the cell's state does not reach them (peepholes)."""
    s, H = n.s, n.hidden
    f, g = n.activation(d, 0), n.activation(d, 1)
    h_of = n.activation(d, 2, clipped=False)
    bias, r = n.biases(d), n.weights(2, d)
    wx = n.per_step(n.products(d, None if bias[0] is None else _plus(s, *bias)))
    peepholes = n.weights(7, d, turned=False)
    p_i, p_o, p_f = s.split(peepholes, [H] * 3, axis=0) if peepholes is not None else (None, None, None)
    coupled = s.integer("input_forget", 0) != 0

    def step(t: int, state: State) -> State:
        h, c = state
        gates = _plus(s, wx[t], None if h is None else s.write("MatMul", h, r))
        if peepholes is None:
            three, new = s.split(gates, [3 * H, H], axis=2)
            i, o, forget = s.split(f(three), [H] * 3, axis=2)
        else:
            i, o, forget, new = s.split(gates, [H] * 4, axis=2)
            i, forget = f(_plus(s, i, _times(s, p_i, c))), f(_plus(s, forget, _times(s, p_f, c)))
        if coupled:
            forget = s.write("Sub", 1.0, i)
        c = _plus(s, s.write("Mul", i, g(new)), _times(s, forget, c))
        if peepholes is not None:
            o = f(_plus(s, o, _times(s, p_o, c)))
        return s.write("Mul", o, h_of(c)), c

    return step
