"""Which nodes of a deployed file carry the change of sensitivity: each alone in the trained network, along the same directions.

From the other side, restoring one node of the deployed file, every node before the last is rounded anew by the smallest change: of
layers that were planted eight and more times too coarse that found 6 in 10, in a ranking that mostly was noise. It serves as a
check of the first of the ranking, whose change it tells well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import onnx

from onnxfim.auditing.common_step import Candidate
from onnxfim.auditing.context import Context
from onnxfim.auditing.run import opened
from onnxfim.errors import InputError, OnnxFimError
from onnxfim.graph.load import ModelFile, fixed_batch, value_type
from onnxfim.graph.restoring import Restorable, Unit, restorable
from onnxfim.graph.surgery import free_batch, read_from
from onnxfim.record.audit import Audit
from onnxfim.record.decision import Aggregate
from onnxfim.record.deployment import Attribution, Carrier, NotRestored
from onnxfim.runtime.forward import OnnxForward
from onnxfim.runtime.rows import Forward, PlacedForward, Rademacher
from onnxfim.slopes.differences import ROWS_PER_DIRECTION, DifferenceJacobian, Request, Sample, Scheme
from onnxfim.slopes.estimators import plain_top
from onnxfim.slopes.kinds import OutputReader
from onnxfim.slopes.spread import spread_of
from onnxfim.verdict.paired import mean_difference

Array: TypeAlias = np.ndarray[Any, Any]
#: Called with how many nodes are done, of how many, and the next one's name.
Told: TypeAlias = Callable[[int, int, str], None]

#: Of files that round, in standard deviations of the inputs: two points this far from each other round independently in every
#: layer, so that rounding has mean zero in the product of their scores, and what is left is the layers' own. At the audit's own
#: step and dither, the smallest that resolve the value, wide activations round by more than a layer eight times too coarse does.
_STEP, _DITHER = 0.1, 0.2
_DIRECTIONS = 16  # of each sample: they are the same for all, so that their noise cancels
_CHECKED = 5  # of the ranking, by restoring them
_OUTPUTS = 256  # samples whose outputs are compared, a pass each
_UNTOLD = 0.5  # of the outputs' change: above it, what was written out is not what the file computes


@dataclass(frozen=True)
class _Seen:
    """One model as measured.

    Attributes:
        scores: Of each sample along the directions, at both dithered points (the same twice where there is one), (n, 2, m, K·P).
        probabilities: Of the samples whose outputs are compared, (N, K, P), or None.
    """

    scores: Array
    probabilities: Array | None

    @property
    def logs(self) -> Array:
        """``ln lambda_max`` of each sample, NaN where it was not resolved, (n,)."""
        found = []
        for one, other in self.scores:
            good = np.isfinite(one).all() and np.isfinite(other).all()
            top = plain_top(one, None if (one == other).all() else other) if good else 0.0
            found.append(np.log(top) if top > 0 else np.nan)
        return np.array(found)


@dataclass(frozen=True)
class _Bench:
    """Measures models alike: the same samples, directions, dither and scale; ``of`` are the positions of the rows X."""

    X: Array
    of: Array
    samples: tuple[Sample, ...]
    scheme: Scheme
    step: float
    dither: float
    limits: tuple[float, float] | None
    field: Array | None
    seed: int
    temperature: float
    directions: int = _DIRECTIONS

    @property
    def evaluations(self) -> int:
        """Forward passes of one model."""
        return len(self.samples) * self.directions * ROWS_PER_DIRECTION[self.scheme] + len(self.X)

    def see(self, forward: Forward, reader: OutputReader, of: Array | None = None) -> _Seen:
        """Measure one model; ``of`` are the positions of the rows among its own samples, where these are others."""
        of = self.of if of is None else of
        base = forward.outputs(self.X, of)
        jacobian = DifferenceJacobian(
            PlacedForward(forward, of), Rademacher(self.seed), scheme=self.scheme, step=self.step, seed=self.seed,
            dither=self.dither, limits=self.limits, field=self.field,
        )  # fmt: skip
        found = []
        for ends in jacobian.ends(self.X, base, [Request(s, 0, self.directions) for s in self.samples]):
            at = base[ends.request.sample.position]
            scores = reader.scores(at, ends.plus, ends.minus, ends.h, self.temperature)
            twin = scores
            if ends.twin is not None:
                twin = reader.scores(at, ends.twin.plus, ends.twin.minus, ends.twin.h, self.temperature)
            found.append((scores, twin))
        return _Seen(np.array(found), reader.probabilities(base) if reader.has_classes else None)


def attribute(
    first: Candidate, second: Candidate, audits: tuple[Audit, Audit], *, samples: int = 16, told: Told | None = None
) -> Attribution:
    """Rank the nodes of the second model by what each alone does to the sensitivity.

    All nodes but one are restored, by giving them the first model's weights and inputs that are not rounded; what is left is that
    one node as it was deployed, in the trained network, on the deployed file's provider. All are measured at one
    scale, at which rounding averages out. The first of the ranking are restored alone as well.

    Args:
        first, second: The trained and the deployed model; both must be files.
        audits: Of the two, at one step.
        samples: Samples to measure on: spread over the upper half by sensitivity, which carries it.
        told: Called as it goes on.

    Raises:
        InputError: a model that is no file.
        OnnxFimError: a model that cannot be opened.
    """
    contexts = [opened(c.model, c.inputs, None, c.settings, None, None) for c in (first, second)]
    files = [c.subject.file for c in contexts]
    if files[0] is None or files[1] is None:
        raise InputError("attribute: a Python function has no nodes, expected two model files. Give the paths of ONNX files.")
    bench = _bench(contexts[0], contexts[1], audits, samples)
    trained = bench.see(
        contexts[0].subject.forward, contexts[0].reader, _places(contexts[0], contexts[1].samples.indices[bench.of])
    )
    deployed = bench.see(contexts[1].subject.forward, contexts[1].reader)
    total = _explained(deployed.logs, trained.logs)
    try:
        found = restorable(files[1].proto, files[0].proto, deployed_dir=files[1].path.parent, trained_dir=files[0].path.parent)
    except OnnxFimError as error:
        return _nothing(bench, total, f"the deployed file cannot be taken apart: {error}")
    if not found.units:
        return _nothing(bench, total, "no node of the deployed file differs from the trained file's in weights or rounding")
    copies = _Copies(contexts[1], files[1], found)
    base = deployed
    left = [NotRestored(*words) for words in found.left]
    if found.rewritten:
        base = bench.see(*copies.opened(()))
        left += _untold(trained, deployed, base)
    whole = bench.see(*copies.opened(found.units))
    nodes: list[tuple[Unit, Carrier]] = []
    for k, unit in enumerate(found.units):
        if told is not None:
            told(k, len(found.units), unit.node)
        try:
            alone = bench.see(*copies.opened([u for u in found.units if u is not unit]))
            nodes.append((unit, _carrier(unit, bench, whole, alone)))
        except OnnxFimError as error:
            left.append(NotRestored(unit.node, unit.operator, f"the file with this node alone as deployed does not run: {error}"))
    nodes.sort(key=lambda pair: -(pair[1].alone.value or 0.0))  # of squares: what is below 0 is noise
    checked = [_checked(c, whole, base, bench.see(*copies.opened((u,)))) for u, c in nodes[:_CHECKED]]
    spent = (3 + found.rewritten + len(nodes) + len(checked)) * bench.evaluations
    return Attribution(
        nodes=(*checked, *(c for _, c in nodes[_CHECKED:])),
        left=tuple(left),
        total=total,
        change=_mean(_changes(trained, base)),
        restored=_mean(_changes(trained, whole)),
        samples=len(bench.samples),
        directions=bench.directions,
        step=bench.step,
        dither=bench.dither,
        scheme=bench.scheme,
        evaluations=spent,
    )


def _places(context: Context, indices: Array) -> Array:
    """Positions of the samples of these indices, (n,)."""
    there = {int(i): k for k, i in enumerate(context.samples.indices)}
    return np.array([there[int(i)] for i in indices], np.int64)


def _nothing(bench: _Bench, total: Aggregate, reason: str) -> Attribution:
    none = Aggregate(None, None, None, 0.0, "nothing was restored")
    scale = bench.step, bench.dither, bench.scheme
    return Attribution((), (), total, none, none, len(bench.samples), bench.directions, *scale, 2 * bench.evaluations, reason)


def _bench(first: Context, second: Context, audits: tuple[Audit, Audit], samples: int) -> _Bench:
    """Where to measure: samples of the upper half by sensitivity, at the step and scheme of the deployed model's audit."""
    there = {int(i): k for k, i in enumerate(second.samples.indices)}
    known = {s.index for s in audits[1].samples}
    sizes = {s.index: s.lambda_max.value or 0.0 for s in audits[0].samples if s.index in known and s.index in there}
    ranked = sorted(sizes, key=lambda i: (-sizes[i], i))
    upper = ranked[: max(samples, (len(ranked) + 1) // 2)]
    picked = [upper[int(k)] for k in np.unique(np.linspace(0, len(upper) - 1, min(samples, len(upper))).round())]
    if not picked:
        raise InputError("attribute: no sample was measured in both models. Audit more samples, or at a step that resolves both.")
    here = set(first.samples.indices.tolist())
    others = [i for i in there if i in here and i not in set(picked)][: max(_OUTPUTS - len(picked), 0)]
    positions = [there[i] for i in (*picked, *others)]
    step = audits[1].step
    rounds = any(a.step.scheme == "dithered" or a.step.rounding is not None for a in audits)
    field = spread_of(second.X, np.array([there[i] for i in ranked]), apart=second.joint).random if step.per_coordinate else None
    return _Bench(
        X=second.X[positions],
        of=np.array(positions, int),
        samples=tuple(Sample(k, i) for k, i in enumerate(picked)),
        scheme="dithered" if rounds else step.scheme,
        step=max(step.step, _STEP * step.input_std) if rounds else step.step,
        dither=max(step.dither or 0.0, _DITHER * step.input_std) if rounds else 0.0,
        limits=second.subject.limits,
        field=field,
        seed=audits[1].run.seed,
        temperature=audits[0].calibration.temperature or 1.0,
    )


@dataclass(frozen=True)
class _Copies:
    """Opens copies of the deployed file with some nodes restored, as the file itself was opened."""

    context: Context
    file: ModelFile
    found: Restorable

    def opened(self, units: Sequence[Unit]) -> tuple[OnnxForward, OutputReader]:
        """A copy's forward, and the reader of its outputs."""
        subject = self.context.subject
        forward = subject.forward
        assert isinstance(forward, OnnxForward)
        into = next(i for i in self.file.graph.inputs if i.name == subject.info.input)
        fixed = fixed_batch(into)
        proto = self.found.restored(units)
        if fixed is not None and forward.finder.batch != fixed:
            proto, fixed = free_batch(proto, fixed), None
        read, reader = subject.read, subject.reader
        if subject.of_logarithm:
            read, reader = subject.info.output, subject.kind
        if read not in {o.name for o in proto.graph.output}:
            proto = read_from(proto, read, value_type(self.file, read) or onnx.TensorProto.FLOAT)
        opened = OnnxForward(
            proto.SerializeToString(), input_name=into.name, output_name=read, shape=self.context.X.shape[1:],
            dtype=np.dtype(into.dtype), batch=forward.batch, fixed=fixed, hardware=forward.hardware, class_axis=forward.class_axis,
            batch_axis=forward.batch_axis, base_dir=self.file.path.parent.resolve(), placed=forward.placed,
        )  # fmt: skip
        return opened, reader


def _carrier(unit: Unit, bench: _Bench, whole: _Seen, alone: _Seen) -> Carrier:
    """What a unit changes by itself."""
    twin = unit.twin
    return Carrier(
        node=unit.node,
        operator=unit.operator,
        twin=None if twin is None else twin.label,
        restores=unit.restores,
        alone=_mean(_changes(whole, alone)),
        logarithm=_explained(alone.logs, whole.logs),
        outputs=_moved(whole, alone),
        restored=None,
        weights=None if twin is None else twin.distance,
        evaluations=bench.evaluations,
    )


def _checked(carrier: Carrier, whole: _Seen, base: _Seen, seen: _Seen) -> Carrier:
    """The same with what goes from the deployed file when this node alone is restored."""
    change, left = _changes(whole, base), _changes(whole, seen)
    return replace(carrier, restored=_mean(change - left), evaluations=2 * carrier.evaluations)


def _moved(whole: _Seen, alone: _Seen) -> Aggregate:
    """By how much the outputs move."""
    if whole.probabilities is None or alone.probabilities is None:
        return Aggregate(None, None, None, 0.0, "the outputs are no class probabilities")
    return mean_difference(_variation(whole, alone))


def _mean(changes: Array) -> Aggregate:
    """The mean over the samples in which it was resolved."""
    good = changes[np.isfinite(changes)]
    return mean_difference(good) if len(good) else Aggregate(None, None, None, 0.0, "no slope was resolved on any sample")


def _changes(trained: _Seen, seen: _Seen) -> Array:
    """Relative squared change of each sample's scores, ``‖A − A′‖² / ‖A′‖²`` along the directions, (n,).

    The product of the two dithered points has the rounding's own noise in neither factor's mean.
    """
    apart = seen.scores - trained.scores  # (n, 2, m, K·P)
    with np.errstate(divide="ignore", invalid="ignore"):
        size = (trained.scores[:, 0] * trained.scores[:, 1]).sum(axis=(1, 2))
        return np.where(size > 0, (apart[:, 0] * apart[:, 1]).sum(axis=(1, 2)) / size, np.nan)


def _explained(base: Array, other: Array) -> Aggregate:
    """The mean difference of logarithms over the samples that both resolve."""
    apart = (base - other)[np.isfinite(base) & np.isfinite(other)]
    if len(apart) == 0:
        return Aggregate(None, None, None, 0.0, "no slope was resolved in both on any sample")
    return mean_difference(apart)


def _variation(one: _Seen, other: _Seen) -> Array:
    """Total variation of each sample, (N,)."""
    assert one.probabilities is not None
    assert other.probabilities is not None
    return np.asarray(0.5 * np.abs(one.probabilities - other.probabilities).sum(axis=1).mean(axis=1))


def _untold(trained: _Seen, deployed: _Seen, base: _Seen) -> Iterator[NotRestored]:
    """What no node tells: kernels that compute otherwise than the operators are defined."""
    if trained.probabilities is None or deployed.probabilities is None or base.probabilities is None:
        return
    change, kernels = float(_variation(trained, deployed).mean()), float(_variation(deployed, base).mean())
    if kernels > _UNTOLD * change:
        yield NotRestored(
            "the file's integer kernels", "all",
            f"written with the operators that they stand for, the outputs move by a total variation of {kernels:.2g}, where "
            f"deployment moved them by {change:.2g}: that part is in no node",
        )  # fmt: skip
