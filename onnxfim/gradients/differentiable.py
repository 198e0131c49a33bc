"""Runs the derivative graphs of a model on the model's own provider: Jacobians, products with JJᵀ, loss gradients.

The graphs come from `gradients`; here they meet the runtime, after a self-test against the file itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnx
from onnx import helper

from onnxfim.gradients import NodeTests, SelfTest, self_test
from onnxfim.gradients.build import RESERVED, DerivativeKind, DerivativeWriter
from onnxfim.gradients.calls import SAMPLES, BoundedCalls, cost_of
from onnxfim.gradients.loss_graph import loss_gradient_graph
from onnxfim.gradients.nodewise import NodeError
from onnxfim.gradients.openvino import for_openvino
from onnxfim.gradients.selftest import HALF_TOLERANCE
from onnxfim.graph.expand import HALF
from onnxfim.graph.held import POSITION
from onnxfim.graph.prepare import Prepared, prepare
from onnxfim.graph.quantised import rounds_inside_products
from onnxfim.graph.referring import refers
from onnxfim.record import streams
from onnxfim.record.settings import Settings
from onnxfim.runtime.call_memory import CallMemory
from onnxfim.runtime.failures import OutOfMemory, RowsFailed
from onnxfim.runtime.hardware import Hardware
from onnxfim.runtime.heap import give_back
from onnxfim.runtime.providers import CPU
from onnxfim.runtime.row_counts import has_own_device, padded_size
from onnxfim.runtime.rows import known_positions
from onnxfim.runtime.session import open_session, run, slow_to_rearrange
from onnxfim.runtime.turns import WeightTurns

Array: TypeAlias = np.ndarray[Any, Any]

_BYTES = 2**26  # of cotangents' results in one call
_OUTPUTS = 1e-4  # relative, of a float32 file
_COTANGENTS = 4  # that tell the rounding of a row
_TESTED_BYTES = 2**25  # of the values that the test of the rules holds at a time
_TESTED_COPIES = 4  # of them: the runtime's, those that it gives out, and moved ones in float64
_SESSIONS = ("_vjp", "_jvp", "_gram", "_loss")  # each holds the weights
_PRODUCTS = 1e-3  # relative, of products in one graph against two


class DifferentiableModel:
    """A model with its derivative graphs; each session opens when it is first needed.

    ``of`` names the sample that each row is, or stands beside, by its position, (N,): a model whose other inputs are held at each
    sample's own value needs it (`graph.held`).

    Args:
        proto: The model (or a copy that reproduced it).
        input_name: The input to differentiate by.
        output_name: The value that holds the logits.
        shape: Shape of one sample.
        num_outputs: Number of classes K.
        settings: Provider and arithmetic; ``surrogate`` differentiates the clip surrogate of a quantised file.
        base_dir: Folder of external data.
        hardware: Where the model itself runs.
        turns: Of a model of large weights: its sessions close at another's turn, and open again when they are called.

    Raises:
        UnsupportedOperator, ModelError: the graph cannot be differentiated.
    """

    def __init__(
        self, proto: onnx.ModelProto, *, input_name: str, output_name: str, shape: tuple[int, ...], num_outputs: int,
        settings: Settings, base_dir: Path, hardware: Hardware, turns: WeightTurns | None = None,
    ) -> None:  # fmt: skip
        self.shape, self.num_outputs = shape, num_outputs
        self._turns, self.opening = turns, 0.0
        self._proto, self._names = proto, (input_name, output_name)
        self._settings, self._base_dir, self._hardware = settings, base_dir.resolve(), hardware
        self.few_shapes = False  # until a session says where it runs
        self._graph: Prepared | None = None
        prepared = self._prepared()
        self._placed = any(i.name == POSITION for i in prepared.inputs)
        self.calls = BoundedCalls(
            CallMemory(cost_of(prepared), most=settings.batch), num_outputs, shape,
            lambda session, outputs, feeds: run(session, outputs, feeds, SAMPLES),
        )  # fmt: skip
        #: Until its session is open; it holds the weights once more.
        self._vjp_model: onnx.ModelProto | None = DerivativeWriter(prepared).build("vjp")
        dtype = self._vjp_model.graph.input[0].type.tensor_type.elem_type
        self.dtype = np.dtype(helper.tensor_dtype_to_np_dtype(dtype))

    def _prepared(self) -> Prepared:
        """The graph, ready to be differentiated; kept where its weights are small."""
        graph = self._graph or prepare(
            self._proto, input_name=self._names[0], output_name=self._names[1], reserved=RESERVED, sample_shape=self.shape,
            surrogate="clip" if self._settings.surrogate else None, base_dir=self._base_dir,
        )  # fmt: skip
        self._graph = graph if self._turns is None else None
        return graph

    def _derive(self, kind: DerivativeKind) -> onnx.ModelProto:
        return DerivativeWriter(self._prepared()).build(kind)

    def _open(self, model: onnx.ModelProto) -> Any:
        started = time.process_time()
        self._take_turn()
        if self._runs_on("openvino"):
            model = for_openvino(model)
        session, report = open_session(
            model.SerializeToString(), self._hardware, base_dir=self._base_dir, lean=True, mapped=refers(model),
            plain=slow_to_rearrange(model.graph),
        )  # fmt: skip
        self.few_shapes = has_own_device(report.obtained)
        self.calls.memory.measures = not self.few_shapes
        self.opening = max(self.opening, time.process_time() - started)
        return session

    def _take_turn(self) -> None:
        if self._turns is not None:
            self._turns.take(self)

    def rest(self) -> None:
        """Close the sessions until they are needed."""
        for name in _SESSIONS:
            self.__dict__.pop(name, None)

    def _run(self, session: Any, outputs: Sequence[str], feeds: Mapping[str, Array]) -> list[Array]:
        """One call, in parts where memory does not hold it; NaN at rows that the runtime fails on.

        Raises:
            OutOfMemory: one sample with one seed has no memory.
        """
        return self.calls(session, outputs, feeds, self._padded if self.few_shapes else None)

    def _padded(self, rows: int, seeds: int) -> int:
        """Rows of the call that so many are fed in, where calls have few different numbers of them."""
        return padded_size(rows, self.rows_per_call(seeds))

    def _runs_on(self, provider: str) -> bool:
        """Whether the first provider is this one, by its short name or its full one."""
        return self._hardware.providers[0].lower().removesuffix("executionprovider") == provider

    @cached_property
    def _vjp(self) -> Any:
        model, self._vjp_model = self._vjp_model or self._derive("vjp"), None
        return self._open(model)

    @cached_property
    def _jvp(self) -> Any:
        return self._open(self._derive("jvp"))

    @cached_property
    def _gram(self) -> Any:
        return self._open(self._derive("gram"))

    @cached_property
    def _loss(self) -> Any:
        return self._open(loss_gradient_graph(self._derive("vjp")))

    def rows_per_call(self, seeds: int) -> int:
        """Samples per call when each has so many seeds."""
        rows = min(256, _BYTES // max(int(np.prod(self.shape)) * 4 * seeds, 1), self._settings.batch or 256)
        return max(1, int(rows))

    def _at(self, X: Array, of: Array | None) -> dict[str, Array]:
        """What is fed for the rows X (N, *shape) of these samples.

        Raises:
            LostPosition: the model needs positions, and there are none.
        """
        places = {POSITION: known_positions(of, len(X))} if self._placed else {}
        return {"x": X.astype(self.dtype, copy=False), **places}

    def vjp(self, X: Array, U: Array, of: Array | None = None) -> tuple[Array, Array]:
        """Logits (N, K) and ``Jᵀu`` (S, N, *shape) for cotangents U (S, N, K)."""
        feeds = {**self._at(X, of), "u": U.astype(self.dtype, copy=False)}
        z, g = self._run(self._vjp, ["z", "g"], feeds)
        return z, g

    def jvp(self, X: Array, V: Array, of: Array | None = None) -> tuple[Array, Array]:
        """Logits (N, K) and ``Jv`` (S, N, K) for tangents V (S, N, *shape)."""
        feeds = {**self._at(X, of), "v": V.astype(self.dtype, copy=False)}
        z, w = self._run(self._jvp, ["z", "w"], feeds)
        return z, w

    def gram(self, X: Array, U: Array, of: Array | None = None) -> Array:
        """``J Jᵀ u`` (S, N, K) for U (S, N, K); ``Jᵀu`` stays on the device."""
        feeds = {**self._at(X, of), "u": U.astype(self.dtype, copy=False)}
        return self._run(self._gram, ["w"], feeds)[0]

    def loss_gradient(self, X: Array, labels: Array, rivals: Array, of: Array | None = None) -> tuple[Array, Array]:
        """Logits (N, classes) and the gradient by x (N, *shape) of ``log Σ_j exp z_j − z_y`` for labels y (N,).

        The sum is over the classes j ≠ y, or over the rival alone where ``rivals`` (N,) names one and not -1. A single output
        is the logit of class 1 against a logit of 0, so there are two classes and no choice of rivals.
        """
        K = self.num_outputs
        target = np.eye(K)[labels] if K > 1 else labels[:, None]
        aside = np.where(rivals[:, None] < 0, target, np.arange(K) != rivals[:, None])
        classes = {"target": target, "aside": aside} if K > 1 else {"target": target}
        feeds = {**self._at(X, of), **{name: value.astype(self.dtype, copy=False) for name, value in classes.items()}}
        z, g = self._run(self._loss, ["z", "g"], feeds)
        return (z if K > 1 else np.concatenate([np.zeros_like(z), z], axis=1)), g[0]

    def why_not(self, X: Array, of: Array | None = None) -> str | None:
        """What the runtime says where it fails on the derivative at a row X (1, *shape); None where it does not."""
        u = np.ones((1, 1, self.num_outputs), self.dtype)
        try:
            run(self._vjp, ["g"], {**self._at(X, of), "u": u})
        except RowsFailed as error:
            return error.said
        return None

    def that_run(self, X: Array, of: Array | None = None) -> Array:
        """Which of the rows X (N, *shape) have finite outputs and a finite derivative, (N,) bool."""
        u = np.ones((1, len(X), self.num_outputs), self.dtype)
        z, g = self._run(self._vjp, ["z", "g"], {**self._at(X, of), "u": u})
        return np.asarray(np.isfinite(z).all(axis=1) & np.isfinite(g[0]).reshape(len(X), -1).all(axis=1))

    def jacobian(self, X: Array, of: Array | None = None) -> Array:
        """The Jacobian of the logits of a block of samples, (N, K, d) in the model's own precision."""
        K = self.num_outputs
        U = np.broadcast_to(np.eye(K, dtype=self.dtype)[:, None], (K, len(X), K))  # (K, N, K)
        g = self.vjp(X, np.ascontiguousarray(U), of)[1]  # (K, N, *shape)
        return np.moveaxis(g.reshape(K, len(X), -1), 0, 1)

    def self_test(
        self, X: Array, original: Callable[[Array], Array], *, seed: int, spread: Array | None = None, products: bool = False,
        of: Array | None = None,
    ) -> SelfTest:  # fmt: skip
        """Compare the derivative with the model before anything is built on it (`gradients.self_test`).

        Args:
            X: A few samples, (N, *shape).
            original: The model's own logits (N, K) for rows of inputs.
            seed: Seed of the directions.
            spread: Standard deviation of each coordinate, broadcastable to a sample.
            products: The graphs of products are used too. They are of the same rules, which is enough on the CPU; another provider
                may compute them otherwise.
        """
        if (short := self.calls.memory.short()) is not None:
            raise OutOfMemory(f"derivative graph: {short}. Free memory, or raise the limit.")
        rounds = any(t.data_type in HALF for t in self._proto.graph.initializer) or rounds_inside_products(self._proto) is not None
        try:
            return self._tested(X, original, of, seed=seed, spread=spread, products=products, rounds=rounds)
        finally:  # tangents are needed again at ties alone, and each session holds the weights
            self.__dict__.pop("_jvp", None)
            self.__dict__.pop("_rules", None)
            give_back()

    def _tested(
        self, X: Array, original: Callable[[Array], Array], of: Array | None, *, seed: int, spread: Array | None, products: bool,
        rounds: bool,
    ) -> SelfTest:  # fmt: skip
        """The self-test, with what the graphs as a whole must hold."""
        test = self_test(
            original, self.vjp, self.jvp, X, rng=np.random.default_rng([seed, streams.SELF_TEST]), rules=self.rule_errors,
            spread=spread, rounds=rounds, of=of,
        )  # fmt: skip
        if test.passed and test.output_error > (HALF_TOLERANCE if rounds else _OUTPUTS):
            reason = f"the derivative graph's outputs differ from the model's by {test.output_error:.1e} of the largest"
            return replace(test, passed=False, reason=reason, same_outputs=False)
        if test.passed and products and not self._runs_on("cpu"):
            error = self._products_error(X, of, np.random.default_rng([seed, streams.SELF_TEST, 2]))
            if not error <= _PRODUCTS:
                return replace(test, passed=False, reason=f"products with J Jᵀ differ from J(Jᵀu) by {error:.1e}")
        return test

    def _products_error(self, X: Array, of: Array | None, rng: np.random.Generator) -> float:
        """The relative error of the graph of products at the rows X (N, *shape), against those of ``Jᵀu`` and ``Jv``."""
        u = rng.standard_normal((1, len(X), self.num_outputs))
        got, want = self.gram(X, u, of), self.jvp(X, self.vjp(X, u, of)[1], of)[1]
        return float(np.abs(got - want).max() / (np.abs(want).max() or 1.0))

    def rounding(self, X: Array, *, seed: int, of: Array | None = None) -> float:
        """Relative error that float32 leaves in ``‖Jᵀu‖²`` at the worst of the rows X (N, *shape), and so in lambda_max.

        Where a row stands within rounding of a kink, which side it is on is chance: the rows are moved by one unit in the last
        place, which no derivative should notice.
        """
        rng = np.random.default_rng([seed, streams.SELF_TEST, 1])
        u = rng.standard_normal((_COTANGENTS, len(X), self.num_outputs))
        X = X.astype(self.dtype)
        moved = np.nextafter(X, np.where(rng.random(X.shape) < 0.5, np.inf, -np.inf).astype(self.dtype))
        moved = np.where(X == 0, X, moved)  # a zero's neighbour is no rounding of anything
        before, after = (
            np.square(self.vjp(rows, u, of)[1].astype(np.float64)).reshape(_COTANGENTS, len(X), -1).sum(axis=-1)
            for rows in (X, moved)
        )
        known = (before > 0) & np.isfinite(before) & np.isfinite(after)
        return float(np.abs(after[known] / before[known] - 1).max(initial=0.0))

    @cached_property
    def _rules(self) -> NodeTests:
        return NodeTests.of(self._prepared())

    def rule_errors(self, X: Array, v: Array, of: Array | None = None) -> tuple[Array, list[NodeError]]:
        """``Jv`` (N, K) at the rows X along v (N, *shape), and all rules' errors; of fewer rows where memory is short."""
        if refers(self._proto):  # a session that maps its weights opens in no time
            self.__dict__.pop("_vjp", None)
            self.__dict__.pop("_jvp", None)
        rows = max(
            1, self.calls.memory.at_most(_TESTED_BYTES * _TESTED_COPIES) // max(self._rules.bytes_per_row() * _TESTED_COPIES, 1)
        )
        beside = {name: a for name, a in self._at(X, of).items() if name != "x"}
        parts = [
            self._rules(self._evaluate, X[i : i + rows], v[i : i + rows], {name: a[i : i + rows] for name, a in beside.items()})
            for i in range(0, min(len(X), 2 * rows), rows)
        ]
        w = np.concatenate([w for w, _ in parts])
        found = [
            replace(first, errors=np.concatenate([nodes[k].errors for _, nodes in parts])) for k, first in enumerate(parts[0][1])
        ]
        return w, found

    def _evaluate(self, model: onnx.ModelProto, feeds: Mapping[str, Array]) -> list[Array]:
        """Values of a graph of the test of the rules, on the CPU.

        A rule is right or wrong wherever it runs, and a session for every node is dear on other providers. ``Jv`` of this test,
        held against the one that is used, then shows whether the provider computes what the CPU does.
        """
        self._take_turn()
        cast = {name: a.astype(self.dtype, copy=False) if name in ("x", "v") else a for name, a in feeds.items()}
        session, _ = open_session(
            model.SerializeToString(),
            self._hardware.on(CPU),
            base_dir=self._base_dir,
            lean=True,
            mapped=refers(model),
            plain=True,
            packed=False,
        )
        found = run(session, [o.name for o in model.graph.output], cast)
        del session  # many follow each other, and what each leaves would stay
        give_back()
        return found
