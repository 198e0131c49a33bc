"""Ties at the data: which audited samples stand on kinks of the graph, at which nodes. Forward passes alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnx

from onnxfim.auditing.context import Clean, Context, Found, Ground
from onnxfim.auditing.instruments import differences
from onnxfim.auditing.stages import as_found, stage
from onnxfim.auditing.tied_samples import LEAST_SHARE, NO_SLOPE, TiedSamples
from onnxfim.errors import OnnxFimError
from onnxfim.gradients.kinks import KinkFinder
from onnxfim.gradients.selftest import beside, deviations
from onnxfim.graph.held import POSITION
from onnxfim.graph.referring import refers
from onnxfim.record import streams
from onnxfim.record.sample import Estimate, SampleResult
from onnxfim.runtime.available_memory import available_memory
from onnxfim.runtime.call_memory import SHARE
from onnxfim.runtime.failures import OutOfMemory, RowsFailed
from onnxfim.runtime.session import open_session, run, slow_to_plan, slow_to_rearrange
from onnxfim.slopes.oddness import even_share

Array: TypeAlias = np.ndarray[Any, Any]

_BYTES = 2**26  # of values in one call
_COPIES = 6  # of the values that are held while they are compared
_BESIDE = 1e-3  # of the spread: tells a tie from values that stay equal
_DIRECTIONS = 16  # along which both sides are compared
_EVEN = 0.02  # of the odd part's energy: what a smooth function may show at the step of the differences
#: Samples that the spread is taken over.
SPREAD_ROWS = 256


@stage("looking for ties", instead=lambda context, reason, clean: TiedSamples())
def find(context: Context, clean: Clean) -> TiedSamples:
    """Ties at the audited samples; nothing where the file is no graph, rounds its values, or has no common form."""
    context.say("looking for ties")
    file, info, settings = context.subject.file, context.subject.info, context.settings
    source = context.subject.differentiable
    if file is None or context.report is None:
        return TiedSamples()
    proto, entry = (file.proto, info.input) if source is None else (source.proto, source.input_name)
    exit_, folder = (context.subject.output, file.path.parent) if source is None else (source.logits, source.base_dir)
    try:
        finder = KinkFinder(
            proto, input_name=entry, output_name=exit_, sample_shape=context.X.shape[1:],
            surrogate="clip" if settings.surrogate else None, base_dir=folder,
        )  # fmt: skip
        if finder.rounds:
            return TiedSamples()
        if not finder.nodes:
            return TiedSamples(audited=len(clean.audited))
        return _counted(context, clean, finder, folder)
    except OnnxFimError:
        return TiedSamples()


def surrounding(context: Context, clean: Clean) -> Array:
    """The samples that tell how far each coordinate goes, (n, *shape): as many as do, not a copy of all."""
    return context.X[(clean.audited if clean.around is None else clean.around)[:SPREAD_ROWS]]


def _counted(context: Context, clean: Clean, finder: KinkFinder, folder: Path) -> TiedSamples:
    assert context.hardware is not None  # there is a file
    if context.subject.turns is not None:
        context.subject.turns.none()
    session = open_session(
        finder.model.SerializeToString(),
        context.hardware,
        base_dir=folder.resolve(),
        lean=True,
        mapped=refers(finder.model),
        plain=slow_to_rearrange(finder.model.graph),
        planned=not slow_to_plan(finder.model.graph),
    )[0]
    dtype = onnx.helper.tensor_dtype_to_np_dtype(finder.model.graph.input[0].type.tensor_type.elem_type)
    if np.dtype(dtype).kind != "f":
        return TiedSamples()
    outputs = [o.name for o in finder.model.graph.output]
    spread = deviations(surrounding(context, clean))
    rows = max(1, min(64, _most(finder.bytes_per_row)))
    placed = any(i.name == POSITION for i in finder.model.graph.input)
    tied: dict[int, Array] = {}
    for start in range(0, len(clean.audited), rows):
        context.meter.check()
        block = clean.audited[start : start + rows]
        X = context.X[block].astype(dtype)
        rng = np.random.default_rng([context.settings.seed, context.index(block[0]), streams.KINKS])
        near = beside(X, spread, rng, _BESIDE)

        def shares(part: Array) -> Array:
            def values(points: Array) -> list[Array]:
                context.meter.spent(len(part))
                feeds = {"x": points[part], **({POSITION: block[part]} if placed else {})}  # noqa: B023
                return run(session, outputs, feeds, dict.fromkeys(feeds, 0))

            return finder.shares(values(X), lambda: values(near))  # noqa: B023 - called at once; (nodes, n)

        for part, found in _in_halves(shares, np.arange(len(block))):
            tied |= {int(block[p]): found[:, k] for k, p in enumerate(part) if (found[:, k] > LEAST_SHARE).any()}
    return TiedSamples(tied, finder.nodes, len(clean.audited))


def _most(row: int) -> int:
    """Rows of a call whose values take so many bytes each: they are held at the samples and beside them, and compared."""
    left = available_memory()
    return (_BYTES if left is None else min(_BYTES, int(SHARE * left) // _COPIES)) // max(row, 1)


def _in_halves(shares: Callable[[Array], Array], part: Array) -> Iterator[tuple[Array, Array]]:
    """Shares of the rows ``part`` and whose they are; nothing of rows that the runtime fails on, or has no memory for."""
    try:
        yield part, shares(part)
    except (RowsFailed, OutOfMemory):
        if len(part) > 1:
            yield from _in_halves(shares, part[: len(part) // 2])
            yield from _in_halves(shares, part[len(part) // 2 :])


@dataclass(frozen=True)
class _Thinned:
    """Directions of -1, 0 and 1: of ±1 alone, the even part of a clip at every coordinate would be one constant."""

    seed: int

    def block(self, index: int, start: int, count: int, d: int) -> Array:
        rng = np.random.default_rng([self.seed, index, streams.KINKS, start])
        return rng.integers(-1, 2, (count, d), np.int8)


@stage("looking for kinks", small=True, instead=lambda ground, reason: frozenset(ground.ties.at))
def kinked_samples(ground: Ground) -> frozenset[int]:
    """Positions of the tied samples at which the two one-sided differences differ: by differences they have no value.

    A difference to both sides averages the two slopes, and a sketch of random directions reads several times too low. The even
    part of the differences tells: it falls with the step where the function is smooth, and stays where it has a kink.
    """
    if not ground.ties.at:
        return frozenset()
    jacobian = differences(ground, _Thinned(ground.settings.seed), replace(ground.step, scheme="central", dither=None))
    found = set()
    for ends in jacobian.ends(ground.X, ground.base, [ground.request(p, 0, _DIRECTIONS) for p in sorted(ground.ties.at)]):
        position = ends.request.sample.position
        if even_share(ground.reader, ground.base[position], ends) > _EVEN:
            found.add(position)
    return frozenset(found)


#: Why a sample on ties has no value by differences.
ON_TIES = (
    f"{NO_SLOPE}: the sample stands on ties of the graph, where differences average two one-sided slopes and read too low; "
    "gradients give an interval (--method gradient)"
)
#: Why a sample beside a jump has none.
BESIDE_A_JUMP = (
    "the outputs jump, bend or round within a step of this sample, so that differences along random directions are no slopes; "
    "gradients or all coordinates may give an interval (--method gradient, --method exact)"
)


def without_slope(result: SampleResult, reason: str = ON_TIES) -> SampleResult:
    """A result by differences at a kink: no value, with the reason."""
    missing: dict[str, Any] = {
        f.name: replace(value, value=None, low=None, high=None, reason=reason, plain=None, cross_fit=None, replicates=())
        for f in fields(result)
        if isinstance(value := getattr(result, f.name), Estimate)
    }
    return replace(result, top_eigenvalues=(), **missing)


@stage("telling the ties", small=True, instead=as_found)
def told(ground: Ground, found: Found) -> Found:
    """What was found, with the ties beside the derivative's record."""
    indices = {p: ground.index(p) for p in ground.ties.at}
    return replace(found, gradient=replace(found.gradient, ties=ground.ties.record(found.in_order, indices)))
