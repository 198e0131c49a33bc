"""Runs the derivative graphs of a model on the model's own provider: Jacobians, products with the Fisher matrix, loss gradients.

The graphs come from `gradients`; here they meet the runtime, after a self-test against the file itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnx
from onnx import TensorProto, helper

from onnxfim.gradients import derivative_graph
from onnxfim.results import Settings
from onnxfim.session import open_session, run

Array: TypeAlias = np.ndarray[Any, Any]

_BYTES = 2**26  # of cotangents' results in one call
_ADJOINT = 1e-4  # relative: what float32 passes of a deep net leave
_OUTPUTS = 1e-4
_DIFFERENCES = 0.05  # of Jv: a kink of a ReLU net between the two ends moves single classes by per cents


@dataclass(frozen=True)
class SelfTest:
    """Whether the derivative of this model is right, and what was compared."""

    passed: bool
    reason: str
    adjoint_error: float | None = None
    difference_error: float | None = None


class DifferentiableModel:
    """A model with its derivative graphs; each session opens when it is first needed.

    Args:
        proto: The model (or a copy that reproduced it).
        input_name: The input to differentiate by.
        output_name: The value that holds the logits.
        shape: Shape of one sample.
        num_outputs: Number of classes K.
        settings: Provider and arithmetic; ``surrogate`` differentiates the clip surrogate of a quantised file.
        base_dir: Folder of external data.
        provider: The provider that the model itself runs on.

    Raises:
        UnsupportedOperator, ModelError: the graph cannot be differentiated.
    """

    def __init__(
        self, proto: onnx.ModelProto, *, input_name: str, output_name: str, shape: tuple[int, ...], num_outputs: int,
        settings: Settings, base_dir: Path, provider: str,
    ) -> None:  # fmt: skip
        self.shape, self.num_outputs = shape, num_outputs
        self._proto, self._names = proto, (input_name, output_name)
        self._settings, self._base_dir, self._provider = settings, base_dir.resolve(), provider
        self._vjp_model = self._derive("vjp")
        dtype = self._vjp_model.graph.input[0].type.tensor_type.elem_type
        self.dtype = np.dtype(helper.tensor_dtype_to_np_dtype(dtype))

    def _derive(self, kind: Any) -> onnx.ModelProto:
        return derivative_graph(
            self._proto,
            input_name=self._names[0],
            output_name=self._names[1],
            kind=kind,
            sample_shape=self.shape,
            base_dir=self._base_dir,
        )

    def _open(self, model: onnx.ModelProto) -> Any:
        return open_session(
            model.SerializeToString(), providers=(self._provider,), tf32=self._settings.tf32, base_dir=self._base_dir
        )[0]

    @cached_property
    def _vjp(self) -> Any:
        return self._open(self._vjp_model)

    @cached_property
    def _jvp(self) -> Any:
        return self._open(self._derive("jvp"))

    @cached_property
    def _fisher(self) -> Any:
        return self._open(self._derive("fisher"))

    @cached_property
    def _gram(self) -> Any:
        return self._open(self._derive("gram"))

    @cached_property
    def _loss(self) -> Any:
        return self._open(loss_gradient_graph(self._vjp_model))

    def rows_per_call(self, seeds: int) -> int:
        """Samples per call when each has so many seeds."""
        return max(1, min(256, _BYTES // max(int(np.prod(self.shape)) * 4 * seeds, 1)))

    def vjp(self, X: Array, U: Array) -> tuple[Array, Array]:
        """Logits (N, K) and ``Jᵀu`` (S, N, *shape) for cotangents U (S, N, K)."""
        z, g = run(self._vjp, ["z", "g"], {"x": X.astype(self.dtype, copy=False), "u": U.astype(self.dtype, copy=False)})
        return z, g

    def jvp(self, X: Array, V: Array) -> tuple[Array, Array]:
        """Logits (N, K) and ``Jv`` (S, N, K) for tangents V (S, N, *shape)."""
        z, w = run(self._jvp, ["z", "w"], {"x": X.astype(self.dtype, copy=False), "v": V.astype(self.dtype, copy=False)})
        return z, w

    def fisher(self, X: Array, U: Array, temperature: float) -> tuple[Array, Array, Array]:
        """Logits, ``Aᵀu`` (S, N, *shape) and ``A Aᵀ u`` (S, N, K) float64 for U (S, N, K) float64."""
        feeds = {
            "x": X.astype(self.dtype, copy=False),
            "u": U.astype(np.float64, copy=False),
            "temperature": np.float64(temperature),
        }
        z, g, w = run(self._fisher, ["z", "g", "w"], {k: np.asarray(v) for k, v in feeds.items()})
        return z, g, w

    def gram(self, X: Array, U: Array) -> Array:
        """``J Jᵀ u`` (S, N, K) for U (S, N, K)."""
        return run(self._gram, ["w"], {"x": X.astype(self.dtype, copy=False), "u": U.astype(self.dtype, copy=False)})[0]

    def loss_gradient(self, X: Array, target: Array) -> tuple[Array, Array]:
        """Logits (N, K) and the gradient of the cross-entropy by x (N, *shape), for target distributions (N, K)."""
        z, g = run(self._loss, ["z", "g"], {"x": X.astype(self.dtype, copy=False), "target": target.astype(self.dtype, copy=False)})
        return z, g[0]

    def jacobian(self, X: Array) -> Array:
        """The Jacobian of the logits of a block of samples, (N, K, d) in the model's own precision."""
        K = self.num_outputs
        U = np.broadcast_to(np.eye(K, dtype=self.dtype)[:, None], (K, len(X), K))  # (K, N, K)
        g = self.vjp(X, np.ascontiguousarray(U))[1]  # (K, N, *shape)
        return np.moveaxis(g.reshape(K, len(X), -1), 0, 1)

    def self_test(self, X: Array, outputs: Array, *, step: float, seed: int) -> SelfTest:
        """Compare the derivative with the file itself before anything is built on it.

        Args:
            X: A few samples, (N, *shape).
            outputs: The file's own logits there, (N, K).
            step: Amplitude per coordinate on the plateau of central differences.
            seed: Seed of the directions.

        Returns:
            Passed only if the outputs are unchanged, ``⟨u, Jv⟩ = ⟨Jᵀu, v⟩``, Jv agrees with central differences, and Jᵀu is not 0.
        """
        rng = np.random.default_rng([seed, 0x73656C66])
        V = rng.choice([-1.0, 1.0], size=(2, *X.shape))
        U = rng.standard_normal((2, len(X), self.num_outputs))
        z, w = self.jvp(X, V)
        g = self.vjp(X, U)[1]
        scale = float(np.abs(outputs).max(initial=0.0)) or 1.0
        if not np.allclose(z, outputs, rtol=0, atol=_OUTPUTS * scale):
            return SelfTest(False, f"the derivative graph's outputs differ from the file's by {np.abs(z - outputs).max():.2g}")
        if not np.isfinite(g).all() or not np.isfinite(w).all():
            return SelfTest(False, "the derivative is not finite")
        if not np.abs(g).max() > 0:
            return SelfTest(False, "the derivative is zero everywhere: the graph rounds or steps")
        wide, tall = w.astype(np.float64), g.astype(np.float64)
        left = (U * wide).sum(axis=-1)
        right = (tall * V).reshape(*U.shape[:2], -1).sum(axis=-1)
        size = np.linalg.norm(U, axis=-1) * np.linalg.norm(wide, axis=-1) + np.finfo(np.float64).tiny
        adjoint = float((np.abs(left - right) / size).max())
        if adjoint > _ADJOINT:
            return SelfTest(False, f"⟨u, Jv⟩ and ⟨Jᵀu, v⟩ differ by {adjoint:.2g}: a rule is wrong", adjoint)
        # The best of a few steps: what is too long for one net is below the rounding of another.
        error = min(self._difference_error(X, V[:1], wide[0], r) for r in (step, step / 3, step / 10, step * 3))
        if error > _DIFFERENCES:
            return SelfTest(False, f"Jv and central differences differ by {error:.1%}", adjoint, error)
        return SelfTest(True, "outputs unchanged, adjoint identity and central differences hold", adjoint, error)

    def _difference_error(self, X: Array, V: Array, w: Array, step: float) -> float:
        """Median over the samples of the relative distance between Jv (N, K) and a central difference."""
        plus, minus = (self.jvp((X + sign * step * V[0]).astype(X.dtype), V)[0].astype(np.float64) for sign in (1, -1))
        difference = (plus - minus) / (2 * step)
        size = np.linalg.norm(difference, axis=-1) + np.finfo(np.float64).tiny
        return float(np.median(np.linalg.norm(difference - w, axis=-1) / size))


def loss_gradient_graph(vjp: onnx.ModelProto) -> onnx.ModelProto:
    """The vjp graph with its cotangent computed inside: ``softmax(z) − target``, the gradient of the cross-entropy by z.

    Inputs ``x`` and ``target`` (N, K); outputs ``z`` and ``g`` (1, N, *shape).
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(vjp)
    graph = copy.graph
    z = next(n.input[0] for n in graph.node if "z" in n.output)
    cotangent = next(i for i in graph.input if i.name == "u")
    element = cotangent.type.tensor_type.elem_type
    classes = cotangent.type.tensor_type.shape.dim[-1].dim_value
    graph.input.remove(cotangent)
    graph.input.append(helper.make_tensor_value_info("target", element, ["N", classes]))
    axes = helper.make_tensor("loss/axes", TensorProto.INT64, [1], [0])
    graph.initializer.append(axes)
    added = [
        helper.make_node("Softmax", [z], ["loss/p"], name="loss/softmax", axis=-1),
        helper.make_node("Sub", ["loss/p", "target"], ["loss/c"], name="loss/sub"),
        helper.make_node("Unsqueeze", ["loss/c", "loss/axes"], ["u"], name="loss/u"),
    ]
    nodes = list(graph.node)
    reads = next(i for i, n in enumerate(nodes) if "u" in n.input)
    written = next(i for i, n in enumerate(nodes) if z in n.output)
    at = written + 1
    if reads <= written:  # what reads the cotangent stands before the logits are known: move it behind
        nodes = _sorted([*nodes, *added], graph)
    else:
        nodes[at:at] = added
    del graph.node[:]
    graph.node.extend(nodes)
    return copy


def _sorted(nodes: Sequence[onnx.NodeProto], graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """Nodes in topological order, stable."""
    known = {"", *(i.name for i in graph.input), *(t.name for t in graph.initializer)}
    waiting, order = list(nodes), []
    while waiting:
        ready = [n for n in waiting if all(i in known for i in n.input)]
        if not ready:
            break
        order += ready
        known.update(o for n in ready for o in n.output)
        taken = set(map(id, ready))
        waiting = [n for n in waiting if id(n) not in taken]
    return order + waiting
