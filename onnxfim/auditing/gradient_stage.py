"""The stage of an audit that differentiates the graph: open, test, measure, cross-check, replay, attack."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np

from onnxfim.auditing import checks
from onnxfim.auditing.subject import Subject
from onnxfim.errors import OnnxFimError, SettingsError
from onnxfim.gradients.differentiable import DifferentiableModel
from onnxfim.record.audit import AttackSummary, DirectionPicture, GradientInfo, StepChoice
from onnxfim.record.sample import SampleResult
from onnxfim.record.settings import Settings
from onnxfim.runtime.forward import OnnxForward
from onnxfim.slopes.differences import ROWS_PER_DIRECTION, Differences, Request, Sample
from onnxfim.slopes.exact import GradientRoute
from onnxfim.slopes.sample import Measurer

Array: TypeAlias = np.ndarray[Any, Any]
Results: TypeAlias = dict[int, SampleResult]

_CROSS_DIRECTIONS = 64
_TESTED = 4  # samples of the self-test
_MARGIN = 0.05  # of the range
_TEST_PASSES = 28  # per sample: outputs, two seeds of Jᵀu, three Jv, five steps both ways for two seeds


class GradientStage:
    """Gradients of one audit; ``info`` says how far they came and why not further.

    Args:
        subject: What is audited.
        settings: What was asked for.
        X: All inputs, (N, *shape).
        base: Their outputs, (N, K, P).
        step: The step chosen for differences, at which the gradients are compared.
    """

    def __init__(self, subject: Subject, settings: Settings, X: Array, base: Array, step: StepChoice) -> None:
        self.subject, self.settings, self.X, self.base, self.step = subject, settings, X, base, step
        self.info = GradientInfo(False, subject.no_gradient, False, None, None, 0, None)
        self.pictures: tuple[DirectionPicture, ...] = ()
        self.summary: AttackSummary | None = None
        self.evaluations = 0
        self._route: GradientRoute | None = None
        self._targets: dict[int, Sample] = {}

    def open(self, measurer: Measurer, targets: Sequence[Sample]) -> bool:
        """Derive and test the graphs; False, with the reason in ``info``, where they cannot be used."""
        source, forward = self.subject.differentiable, self.subject.forward
        if source is None or not isinstance(forward, OnnxForward):
            return False
        self._targets = {t.position: t for t in targets}
        few = [t.position for t in targets[:_TESTED]]
        surrogate = self.settings.surrogate and _quantised(source.proto)
        try:
            model = DifferentiableModel(
                source.proto, input_name=source.input_name, output_name=source.logits, shape=self.X.shape[1:],
                num_outputs=self.base.shape[1], settings=self.settings, base_dir=source.base_dir, provider=forward.report.obtained,
            )  # fmt: skip

            def original(rows: Array) -> Array:
                # A surrogate differs from the file by design: it is tested against itself.
                return model.vjp(rows, _zeros(rows, model.num_outputs))[0] if surrogate else forward.outputs(rows)[:, :, 0]

            test = model.self_test(self._inside(self.X[few]) if surrogate else self.X[few], original, seed=self.settings.seed)
        except OnnxFimError as error:
            self.info = replace(self.info, reason=" ".join(str(error).rstrip(".").split()))
            return False
        self.evaluations += _TEST_PASSES * len(few)
        reason = None if test.passed else f"self-test failed: {test.reason}"
        adjoint, difference = (e if math.isfinite(e) else None for e in (test.adjoint_error, test.difference_error))
        self.info = GradientInfo(test.passed, reason, surrogate, adjoint, difference, 0, None)
        self._route = GradientRoute(model, measurer, self.settings.seed)
        return test.passed

    def _inside(self, rows: Array) -> Array:
        """Rows moved off the ends of the range that the file tells apart: a surrogate's clip has a kink there."""
        if self.subject.limits is None:
            return rows
        low, high = self.subject.limits
        margin = _MARGIN * (high - low)
        return np.clip(rows, low + margin, high - margin).astype(rows.dtype)

    def measure(self, targets: Sequence[Sample]) -> Iterator[tuple[int, SampleResult]]:
        """Results of the targets by position, as they come."""
        assert self._route is not None
        return self._route.measure(self.X, self.base, targets)

    def cross_check(self, jacobian: Differences, measurer: Measurer, results: Results) -> None:
        """Sketch the calibration samples on the unmodified file and compare: the ratio of sums, 1 where their intervals agree."""
        wanted = {i: p for p, r in results.items() if (i := r.index) in self.step.samples}
        requests = [
            Request(self._targets[p], 0, _CROSS_DIRECTIONS)
            for _, p in sorted(wanted.items())
            if (results[p].lambda_max.value or 0) > 0
        ]
        ratios = []
        for ends in jacobian.ends(self.X, self.base, requests):
            position = ends.request.sample.position
            self.evaluations += ends.request.count * ROWS_PER_DIRECTION[jacobian.scheme]
            sketch = measurer(ends.request.sample, self.base[position], [ends]).lambda_max
            exact = results[position].lambda_max.value
            if sketch.value is None or sketch.low is None or sketch.high is None or not exact:
                continue
            ratios.append(1.0 if sketch.low <= exact <= sketch.high else sketch.value / exact)
        # The median: single samples at a kink may differ, a wrong rule shows on most.
        ratio = float(np.median(ratios)) if ratios else None
        self.info = replace(self.info, cross_checked=len(ratios), cross_check_ratio=ratio)

    def replay(self, results: Results, say: Callable[[str], None]) -> None:
        """KL curves along the worst directions and their pictures, into ``results`` and ``pictures``."""
        route = self._route
        if not self.settings.replay or not results or route is None:
            return
        positions = {r.index: p for p, r in results.items()}
        targets = [self._targets[positions[r.index]] for r in checks.replayed(list(results.values()), self.settings.replay)]
        if not targets:
            return
        say("replaying the worst directions")
        worst = route.worst_directions(self.X, self.base, targets)
        forward, reader = self.subject.forward, self.subject.reader
        self.evaluations += len(targets) * self.base.shape[1]
        curves = checks.kl_curves(
            forward, reader, self.X, self.base, targets, worst, results, seed=self.settings.seed, spent=self._spent
        )
        for position, curve in curves.items():
            results[position] = replace(results[position], kl_curve=curve)
        self.pictures = checks.direction_pictures(forward, reader, self.X, targets, worst, results)

    def _spent(self, rows: int) -> None:
        self.evaluations += rows

    def attack(self, results: Results, indices: Array, say: Callable[[str], None]) -> None:
        """Attack the first samples; distances into ``results``, the rest into ``summary``."""
        assert self._route is not None
        positions = sorted(p for p, r in results.items() if r.prediction is not None)[: self.settings.attack_samples]
        if not positions:
            return
        field = scale_field(self.settings.input_scale, self.X.shape[1:])
        self.summary, distances = checks.attack(
            self._route.model, self.subject.forward, self.subject.reader, self.X, [results[p] for p in positions], positions,
            settings=self.settings, scale=1.0 if field is None else field, say=say,
        )  # fmt: skip
        self.evaluations += self.summary.evaluations
        for p in positions:
            results[p] = replace(results[p], attack_distance=distances[results[p].index])


def scale_field(scale: tuple[float, ...] | None, shape: tuple[int, ...]) -> Array | None:
    """d(model input)/d(raw input) per coordinate (*shape), from one number, one per channel or coordinate; None if all are 1."""
    if scale is None or all(s == 1 for s in scale):
        return None
    a = np.abs(np.asarray(scale, np.float64))
    if a.size == 1:
        return np.full(shape, float(a[0]))
    if a.size == int(np.prod(shape)):
        return a.reshape(shape)
    if a.size not in (shape[0], shape[-1]):
        raise SettingsError(
            f"input_scale: {a.size} numbers, but samples have shape {shape}. Give one, or one for each channel or coordinate."
        )
    axis = 0 if shape[0] == a.size else len(shape) - 1
    return np.broadcast_to(a.reshape([-1 if k == axis else 1 for k in range(len(shape))]), shape).copy()


def _zeros(rows: Array, num_outputs: int) -> Array:
    return np.zeros((1, len(rows), num_outputs))


def _quantised(proto: Any) -> bool:
    return any(n.op_type in ("QuantizeLinear", "DynamicQuantizeLinear") for n in proto.graph.node)
