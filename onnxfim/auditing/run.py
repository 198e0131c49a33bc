"""The audit: from a model and its samples to one `Audit` object."""

from __future__ import annotations

import math
import platform
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from onnxfim.auditing.cache import Cache, FileStore, RememberedJacobian, remembered_results
from onnxfim.auditing.gradient_stage import GradientStage, scale_field
from onnxfim.auditing.pictures import thumbnails
from onnxfim.auditing.subject import CallableModel, Subject, open_subject
from onnxfim.auditing.summary import aggregate_of, all_aggregates, class_rows, package_versions
from onnxfim.bounds.reading import GraphReading, bound_for, read_graph, with_bounds
from onnxfim.data import Samples, from_arrays
from onnxfim.errors import InputError, ModelError
from onnxfim.graph.load import ModelFile, choose_input, load_model, sample_shape
from onnxfim.record.audit import Audit, Calibration, ClippedRange, DataInfo, Run, StepChoice
from onnxfim.record.sample import SampleResult, Skipped, estimate_of
from onnxfim.record.settings import Settings
from onnxfim.runtime.forward import OnnxForward
from onnxfim.runtime.rows import Coordinates, Directions, Rademacher
from onnxfim.runtime.threads import one_blas_thread
from onnxfim.slopes.calibration import calibrate
from onnxfim.slopes.differences import ROWS_PER_DIRECTION, DifferenceJacobian, Differences, Ends, Request, Sample
from onnxfim.slopes.sample import Measurer
from onnxfim.slopes.step import Probe, calibration_positions, choose_step, is_finite
from onnxfim.verdict.judge import judge

Array: TypeAlias = np.ndarray[Any, Any]

_REFINED_SHARE = 1 / 8  # of the budget, kept back for the samples that decide the mean, the tail and the maximum
_REFINED_ROUND = 16  # directions added to a sample at a time
_REFINED_MOST = 8  # times the first round's directions that one sample may get
_KEPT_BYTES = 2**28  # of outputs kept for samples that may be refined
_FEW_DIRECTIONS = 8
#: Labelled samples read for accuracy and temperature beyond those audited: one forward pass each.
CALIBRATION_SAMPLES = 2000


@dataclass(frozen=True)
class Progress:
    """How far an audit is: the stage, and forward passes done of the total known so far."""

    stage: str
    done: int
    total: int


Report: TypeAlias = Callable[[Progress], None]


def audit(
    model: str | Path | ModelFile | CallableModel,
    inputs: Array | Samples,
    labels: Array | None = None,
    settings: Settings | None = None,
    *,
    progress: Report | None = None,
    cache_dir: str | Path | None = None,
) -> Audit:
    """Estimate the sensitivity of a classifier's output distribution, lambda_max(F(x)), on samples.

    Args:
        model: Path of an ONNX file, or what `from_callable` returned.
        inputs: Samples (N, *shape) in the model's own units, or `data.Samples`.
        labels: Class indices (N,), for accuracy and calibrated values.
        settings: What to do; defaults as on the command line.
        progress: Called as the audit goes on.
        cache_dir: Folder to keep what was computed in, by the file's hash: spectral bounds, and the model's answers as they
            come, so that an interrupted audit goes on where it stopped. None computes all anew.

    Returns:
        The audit; ``run.partial`` is set where an interrupt ended it early.

    Raises:
        OnnxFimError: the model, the data or a setting cannot be used; nothing was measured then.
    """
    settings = settings or Settings()
    started = time.perf_counter()
    file = model if isinstance(model, CallableModel) else model if isinstance(model, ModelFile) else load_model(model)
    samples = _samples(file, inputs, labels, settings)
    _check_count(samples)
    subject = open_subject(file, samples.inputs, settings)
    with one_blas_thread():
        return _Loop(subject, samples, settings, progress or (lambda _: None), started, cache_dir).run()


def planned_step(model: str | Path | ModelFile | CallableModel, inputs: Array | Samples, settings: Settings) -> StepChoice:
    """The step and scheme that `audit` would choose for this model on these samples, without measuring them.

    Raises:
        OnnxFimError: as `audit`.
    """
    file = model if isinstance(model, CallableModel) else model if isinstance(model, ModelFile) else load_model(model)
    samples = _samples(file, inputs, None, settings)
    _check_count(samples)
    subject = open_subject(file, samples.inputs, settings)
    return _Loop(subject, samples, settings, lambda _: None, time.perf_counter(), None).plan_step()


def _samples(model: ModelFile | CallableModel, inputs: Array | Samples, labels: Array | None, settings: Settings) -> Samples:
    if isinstance(inputs, Samples):
        return inputs
    if isinstance(model, CallableModel):
        shape: tuple[int | None, ...] = model.input_shape
        dtype = np.dtype(model.dtype)
    else:
        into = choose_input(model, settings.input)
        shape, dtype = sample_shape(into), np.dtype(into.dtype)
    limit = None if settings.samples is None else max(settings.samples, CALIBRATION_SAMPLES)
    return from_arrays(inputs, labels, shape=shape, dtype=dtype, limit=limit)


def _check_count(samples: Samples) -> None:
    if len(samples) == 0:
        raise InputError("data: no sample is left to audit. Pass at least one sample.")


class _Loop:
    """One audit under way."""

    def __init__(
        self, subject: Subject, samples: Samples, settings: Settings, report: Report, started: float, cache_dir: str | Path | None
    ) -> None:
        self.subject, self.samples, self.settings, self.report, self.started = subject, samples, settings, report, started
        self.forward, self.reader = subject.forward, subject.reader
        self.cache_dir = cache_dir
        self.cache = None if cache_dir is None else Cache(Path(cache_dir))
        self.stores: list[FileStore] = []
        self.X = samples.inputs
        self.labels = samples.labels
        self.skipped: list[Skipped] = list(samples.skipped)
        self.evaluations = 0
        self.done, self.total = 0, 0
        self.results: dict[int, SampleResult] = {}
        self.kept: dict[int, list[Ends]] = {}

    def run(self) -> Audit:
        """All stages in order; an interrupt after the clean pass keeps what was finished."""
        self.forward.find_batch(self.X)
        self._say("clean pass")
        base = self._clean_pass()
        good = self._usable(base)
        labels = None if self.labels is None else self.labels[good]
        calibration = calibrate(self.reader, base[good], labels, self.settings.temperature)
        good = self._audited(good)
        self._say("choosing the step")
        step = self._choose_step(base, good)
        self.evaluations += step.evaluations
        gradients = GradientStage(self.subject, self.settings, self.X, base, step)
        partial = False
        try:
            method = self._by_gradient(gradients, calibration, step, base, good) or self._by_differences(
                calibration, step, base, good
            )
        except KeyboardInterrupt:
            if not self.results:
                raise
            partial, method = True, "gradient" if gradients.info.used else "sketch"
        return self._finish(base, good, calibration, step, method, gradients, partial)

    def _by_differences(self, calibration: Calibration, step: StepChoice, base: Array, good: Array) -> str:
        """Measure from forward passes alone; returns the method."""
        exact, directions, per_sample = self._plan(step, len(good))
        # One coordinate is moved as far as a direction of the ladder in all: noise and curvature are then those measured there.
        amplitude = step.step * math.sqrt(self._dimension()) if exact and not step.given else step.step
        measurer = self._measurer(step, exact, calibration)
        jacobian = self._jacobian(directions, replace(step, step=amplitude))
        self.total = len(good) * per_sample * ROWS_PER_DIRECTION[step.scheme]
        self._measure(jacobian, measurer, base, [Request(self._sample(i), 0, per_sample) for i in good])
        if not exact:
            self._refine(jacobian, measurer, base, per_sample)
        return "exact" if exact else "sketch"

    def _by_gradient(
        self, gradients: GradientStage, calibration: Calibration, step: StepChoice, base: Array, good: Array
    ) -> str | None:
        """Measure through the derivative graph, with its checks; None where there is none to trust."""
        if self.settings.method not in ("auto", "gradient"):
            return None
        targets = [self._sample(i) for i in good]
        self._say("differentiating")
        exact = replace(self._measurer(step, True, calibration), gradient=True, step_error=1e-4)
        if not gradients.open(exact, targets):
            if self.settings.method == "gradient":
                raise ModelError(f"{self.subject.info.name}: no gradients ({gradients.info.reason}). Use --method sketch.")
            return None
        self.total = len(good)
        asked = (self.settings.sigma, self.settings.input_scale, self.settings.surrogate, self.settings.seed)
        read = (self.reader.identity, calibration.temperature, calibration.reason)
        store = self._store(gradients=(*read, *asked))
        for position, result in remembered_results(store, self.X, targets, gradients.measure):
            self.done += 1
            self.evaluations += result.evaluations
            self._say("measuring")
            if not math.isfinite(result.lambda_max.value or 0.0):
                self.skipped.append(Skipped(self._index(position), "the derivative is not finite at this sample"))
                continue
            self.results[position] = result
        self._say("checking against the sketch")
        measurer = self._measurer(step, False, calibration)
        gradients.cross_check(self._jacobian(Rademacher(self.settings.seed), step), measurer, self.results)
        gradients.replay(self.results, self._say)
        if self.settings.attack is not None:
            gradients.attack(self.results, self.samples.indices, self._say)
        self.evaluations += gradients.evaluations
        return "gradient"

    def _sample(self, position: Any) -> Sample:
        i = int(position)
        return Sample(i, self._index(i), self.samples.names[i], None if self.labels is None else int(self.labels[i]))

    def plan_step(self) -> StepChoice:
        """The choice of step and scheme alone."""
        self.forward.find_batch(self.X)
        base = self._clean_pass()
        return self._choose_step(base, self._audited(self._usable(base)))

    def _say(self, stage: str) -> None:
        self.report(Progress(stage, self.done, self.total))

    def _index(self, position: Any) -> int:
        """Position in the data as given; it names the sample's streams, so that skipping others changes nothing."""
        return int(self.samples.indices[int(position)])

    def _clean_pass(self) -> Array:
        base = self.forward.outputs(self.X)
        self.evaluations += len(self.X)
        if self.labels is not None and self.reader.has_classes:
            classes = max(base.shape[1], 2)
            bad = np.flatnonzero(self.labels >= classes)
            if len(bad):
                raise InputError(
                    f"data: label {int(self.labels[bad[0]])} of sample {self._index(bad[0])}, expected 0 to {classes - 1} for "
                    f"{base.shape[1]} outputs. Check the labels, or name the right output with --output."
                )
        return base

    def _usable(self, base: Array) -> Array:
        finite = np.isfinite(base).all(axis=(1, 2))
        for i in np.flatnonzero(~finite):
            self.skipped.append(Skipped(self._index(i), "the model's output is not finite at this sample"))
        good = np.flatnonzero(finite)
        if len(good) == 0:
            raise InputError("model: no output is finite on any sample, expected numbers. Check the inputs' scale and the model.")
        return good

    def _audited(self, good: Array) -> Array:
        """The samples to audit among the usable ones: the first ones, or a seeded draw where the order is by class (folders)."""
        count = self.settings.samples
        if count is None or count >= len(good):
            return good
        if self.samples.class_names is None:
            return good[:count]
        return np.sort(np.random.default_rng(self.settings.seed).permutation(good)[:count])

    def _choose_step(self, base: Array, good: Array) -> StepChoice:
        if self.reader.has_classes:
            p = self.reader.probabilities(base[good])
            undecided = (p * (1 - p)).sum(axis=(1, 2))
        else:
            undecided = np.zeros(len(good))
        chosen = good[calibration_positions(undecided)]
        std = _std(self.X, good)
        probe = Probe(self.X[chosen], base[chosen], tuple(self._index(i) for i in chosen))
        return choose_step(
            self.forward, self.reader, probe, input_std=std if std > 0 else 1.0, seed=self.settings.seed, step=self.settings.step,
            scheme=self.settings.scheme, level=self.subject.level, limits=self.subject.limits,
        )  # fmt: skip

    def _dimension(self) -> int:
        return int(np.prod(self.X.shape[1:]))

    def _goes_exact(self, d: int, per_direction: int) -> bool:
        affordable = d * per_direction <= self.settings.budget - 1
        return self.settings.method == "exact" or (self.settings.method == "auto" and affordable)

    def _plan(self, step: StepChoice, count: int) -> tuple[bool, Directions, int]:
        """(exact, directions, directions per sample in the first round)."""
        per_direction = ROWS_PER_DIRECTION[step.scheme]
        d = self._dimension()
        if self._goes_exact(d, per_direction) and step.scheme != "dithered":
            return True, Coordinates(), d
        passes = self.settings.budget - 1
        if count >= _FEW_DIRECTIONS:
            passes = int(passes * (1 - _REFINED_SHARE))
        return False, Rademacher(self.settings.seed), max(_FEW_DIRECTIONS, passes // per_direction)

    def _measurer(self, step: StepChoice, exact: bool, calibration: Calibration) -> Measurer:
        scale = scale_field(self.settings.input_scale, self.X.shape[1:])
        scales = None if scale is None else (float(scale.min()), float(np.sqrt(np.mean(scale**2))), float(scale.max()))
        # The even part's share of the Gram matrix bounds the forward sketch's bias; its root that of all coordinates, where it is
        # linear and not odd. The share is a mean over six samples and a kink near another one weighs more: three times the root
        # covers 91 to 100 % of the sample models' exact values, once the root 75 %.
        error = 3 * math.sqrt(step.error) if step.scheme == "forward" and step.error else (step.error or 0.0)
        return Measurer(
            reader=self.reader,
            scheme=step.scheme,
            exact=exact,
            gradient=False,
            temperature=calibration.temperature,
            temperature_reason=calibration.reason,
            step_error=max(min(error, 1.0), 1e-4),
            scales=scales,
            scale_field=None if scale is None else scale.ravel(),
        )

    def _jacobian(self, directions: Directions, step: StepChoice) -> Differences:
        """Differences of the model, from the cache where it holds them."""
        jacobian = DifferenceJacobian(
            self.forward, directions, scheme=step.scheme, step=step.step, seed=self.settings.seed, dither=step.dither or 0.0,
            limits=self.subject.limits,
        )  # fmt: skip
        stream, limits = (type(directions).__name__, self.settings.seed), self.subject.limits
        store = self._store(directions=stream, differences=(step.scheme, step.step, step.dither, limits))
        return jacobian if store is None else RememberedJacobian(jacobian, store)

    def _store(self, **identity: object) -> FileStore | None:
        """The cache's store for this model, run in this way; None without a cache, or for a function, which has no hash."""
        if self.cache is None or not isinstance(self.forward, OnnxForward):
            return None
        info, report = self.subject.info, self.forward.report
        model = (info.sha256, info.input, info.output, info.read_from, info.rewritten)
        runtime = (report.obtained, self.settings.tf32, platform.machine(), package_versions())
        self.stores.append(self.cache.store({"model": model, "runtime": runtime, **identity}))
        return self.stores[-1]

    def _measure(self, jacobian: Differences, measurer: Measurer, base: Array, requests: Sequence[Request]) -> None:
        """Evaluate the requests and (re)compute the results of their samples."""
        for ends in jacobian.ends(self.X, base, requests):
            position = ends.request.sample.position
            rows = ends.request.count * ROWS_PER_DIRECTION[jacobian.scheme]
            self.evaluations += rows
            self.done += rows
            refining = position in self.results
            self._say("refining" if refining else "measuring")
            if refining and position not in self.kept:  # its first outputs made room for others meanwhile
                continue
            if not is_finite(ends):
                self.results.pop(position, None)
                self.kept.pop(position, None)
                self.skipped.append(Skipped(self._index(position), "the model's output is not finite near this sample"))
                continue
            parts = [*self.kept.get(position, []), ends]
            result = measurer(ends.request.sample, base[position], parts)
            self.results[position] = result
            if not measurer.exact:
                self._keep(position, parts)

    def _keep(self, position: int, parts: list[Ends]) -> None:
        """Keep the outputs of the samples with the largest values, in a bounded memory, so that they can be refined."""
        self.kept[position] = parts
        size = sum(_bytes(e) for e in parts)
        most = max(1, _KEPT_BYTES // max(size, 1))
        if len(self.kept) > most:
            least = min(self.kept, key=lambda i: self._value(i))
            del self.kept[least]

    def _value(self, position: int) -> float:
        return self.results[position].lambda_max.value or 0.0

    def _refine(self, jacobian: Differences, measurer: Measurer, base: Array, first: int) -> None:
        """Spend the rest of the budget where it decides: on the noise of the mean, of the tail and of the maximum."""
        per_direction = ROWS_PER_DIRECTION[jacobian.scheme]
        n = len(self.results)
        limit = self.settings.budget if self.settings.precision is None else self.settings.max_budget
        spent = sum(r.evaluations for r in self.results.values())
        pool = max(limit * n - spent, 0)
        self.total = self.done + (pool if self.settings.precision is None else 0)
        while pool >= _REFINED_ROUND * per_direction and self.kept:
            if self.settings.precision is not None and self._precise_enough():
                return
            chosen = self._most_deciding(first, pool // (_REFINED_ROUND * per_direction))
            if not chosen:
                return
            requests = [Request(self._sample(i), self.results[i].directions, _REFINED_ROUND) for i in chosen]
            self.total = max(self.total, self.done + len(requests) * _REFINED_ROUND * per_direction)
            self._measure(jacobian, measurer, base, requests)
            pool -= len(requests) * _REFINED_ROUND * per_direction

    def _most_deciding(self, first: int, affordable: int) -> list[int]:
        """Samples whose noise weighs most: ``λ²/m`` in the mean, double where the interval meets the tail's or the maximum's."""
        positions = [i for i in self.kept if self.results[i].directions < _REFINED_MOST * first]
        if not positions:
            return []
        weight = dict.fromkeys(positions, 0.0)
        for measure in ("lambda_max", "lambda_max_calibrated"):
            estimates = {i: e for i, r in self.results.items() if (e := estimate_of(r, measure)) and e.value is not None}
            total = sum(e.value or 0.0 for e in estimates.values())
            if total <= 0:
                continue
            tail = float(np.quantile([e.value or 0.0 for e in estimates.values()], 0.95))
            top = max(e.low or 0.0 for e in estimates.values())
            for i in positions:
                if (e := estimates.get(i)) is not None:
                    deciding = (e.low or 0.0) <= tail <= (e.high or 0.0) or (e.high or 0.0) >= top
                    weight[i] += ((e.value or 0.0) / total) ** 2 / self.results[i].directions * (2.0 if deciding else 1.0)
        ranked = sorted(positions, key=lambda i: (-weight[i], i))
        # Those that weigh about as much as the first, a few at a time: the weights then follow what was learned.
        equal = [i for i in ranked if weight[i] >= 0.5 * weight[ranked[0]]]
        return sorted(equal[: max(1, min(affordable, max(4, len(ranked) // 16)))])

    def _precise_enough(self) -> bool:
        """Whether the mean's interval is narrow enough, or the estimates' noise no longer matters in it."""
        mean = aggregate_of([self.results[i] for i in sorted(self.results)], "lambda_max", seed=self.settings.seed).mean
        if not mean.value or mean.low is None or mean.high is None:
            return True
        half = (mean.high - mean.low) / 2
        noise = math.sqrt(sum((self._value(i) ** 2) * 2 / r.directions for i, r in self.results.items())) / len(self.results)
        return half <= (self.settings.precision or 1.0) * mean.value or 1.96 * noise < 0.1 * half

    def _finish(
        self,
        base: Array,
        good: Array,
        calibration: Calibration,
        step: StepChoice,
        method: str,
        gradients: GradientStage,
        partial: bool,
    ) -> Audit:
        results: Sequence[SampleResult] = tuple(self.results[i] for i in sorted(self.results))
        reading = self._reading()
        if reading is not None:
            results = with_bounds(
                results, self._spreads(base, good), reading.bound, formula=self.reader.spread_formula,
                log10_largest_spread=self.reader.log10_largest_spread,
            )  # fmt: skip
        aggregates = all_aggregates(results, seed=self.settings.seed)
        seconds = time.perf_counter() - self.started
        info = self.subject.info
        data = self._data_info()
        run = Run(
            provider=self.forward.report.obtained if isinstance(self.forward, OnnxForward) else "callable",
            providers_requested=self.settings.providers,
            providers_registered=self.forward.report.registered if isinstance(self.forward, OnnxForward) else (),
            provider_reason=self.forward.report.reason if isinstance(self.forward, OnnxForward) else None,
            method=method,
            step=step.step,
            scheme=step.scheme,
            temperature=calibration.temperature,
            seed=self.settings.seed,
            evaluations=self.evaluations,
            seconds=seconds,
            versions=package_versions(),
            platform=f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
            partial=partial,
            provider_missed=isinstance(self.forward, OnnxForward) and self.forward.report.explicit,
            times=self._times(seconds),
        )
        shown = {self._index(i): self.X[i] for i in good}
        found = Audit(
            model=replace(info, doubt=self.subject.doubt),
            data=data,
            settings=self.settings,
            run=run,
            step=replace(step, clipped=self._clipped(step, good)),
            calibration=calibration,
            aggregates=aggregates,
            samples=tuple(results),
            skipped=tuple(sorted(self.skipped, key=lambda s: s.index)),
            findings=(),
            verdict="inconclusive",
            classes=tuple(class_rows(results, labelled=self.labels is not None, names=self.samples.class_names)),
            thumbnails=thumbnails(results, shown),
            gradient=gradients.info,
            directions=gradients.pictures,
            attack=gradients.summary,
            architecture=None if reading is None else reading.architecture,
            bound=None if reading is None else reading.bound,
            closed_forms=() if reading is None else reading.closed_forms,
        )
        return judge(found)

    def _times(self, seconds: float) -> dict[str, Any]:
        """What depends on the clock, and on what was measured before."""
        cached = sum(store.rows for store in self.stores)
        times: dict[str, Any] = {"batch": self.forward.batch, "rows_per_second": (self.evaluations - cached) / max(seconds, 1e-9)}
        if self.stores:
            times["cached_rows"] = cached
            times["cache_damaged"] = sum(store.damaged for store in self.stores)
            times["cache_trouble"] = next((store.trouble for store in self.stores if store.trouble), None)
        for store in self.stores:
            store.close()
        return times

    def _reading(self) -> GraphReading | None:
        """Family and bound of the audited graph."""
        file, info = self.subject.file, self.subject.info
        if file is None or not self.settings.bounds:
            return None
        self._say("bounding")
        reading = read_graph(
            file.graph, file.sha256, input_name=info.input, output_name=info.output, output_kind=info.output_kind,
            cache_dir=self.cache_dir,
        )  # fmt: skip
        return replace(reading, bound=bound_for(reading.bound, self.reader.log10_largest_spread))

    def _spreads(self, base: Array, good: Array) -> dict[int, float]:
        """log10 of the largest eigenvalue of C at each sample, by index; none of outputs with positions."""
        return {} if base.shape[2] != 1 else {self._index(i): self.reader.log10_spread(base[i]) for i in good}

    def _clipped(self, step: StepChoice, good: Array) -> ClippedRange | None:
        """How many coordinates of the audited samples lie within a step of an end of the range that the file tells apart."""
        if self.subject.limits is None or step.scheme != "dithered":
            return None
        low, high = self.subject.limits
        reach = step.step + (step.dither or 0.0)
        near = [float(np.mean((self.X[i] < low + reach) | (self.X[i] > high - reach))) for i in good]
        return ClippedRange(low, high, float(np.mean(near)))

    def _data_info(self) -> DataInfo:
        X = self.X
        return DataInfo(
            source=self.samples.source,
            sha256=self.samples.sha256,
            count=len(X),
            shape=tuple(int(n) for n in X.shape[1:]),
            labels=self.labels is not None,
            synthetic=self.samples.synthetic,
            class_names=self.samples.class_names,
            input_min=float(X.min()),
            input_max=float(X.max()),
            input_std=_std(X, range(len(X))),
        )


def _std(X: Array, positions: Iterable[int]) -> float:
    """Standard deviation over the samples at ``positions``, in float64, a sample at a time: the data is not copied."""
    mean = float(np.mean([X[i].mean(dtype=np.float64) for i in positions]))
    return math.sqrt(float(np.mean([np.square(X[i].astype(np.float64) - mean).mean() for i in positions])))


def _bytes(ends: Ends) -> int:
    return ends.plus.nbytes + ends.minus.nbytes + (0 if ends.twin is None else _bytes(ends.twin))


__all__ = ["CALIBRATION_SAMPLES", "Progress", "audit", "planned_step"]
