"""The radius around every sample in which its prediction is proved to stay, by bounds of the network there, in L2 and L∞."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeAlias
from weakref import WeakKeyDictionary

import numpy as np

from onnxfim.auditing.context import ENDS, Context, Found, Ground
from onnxfim.auditing.final_results import fingerprint
from onnxfim.auditing.instruments import raw_units
from onnxfim.auditing.stages import stage
from onnxfim.errors import ModelError
from onnxfim.graph.ends import ending
from onnxfim.graph.graph import Graph
from onnxfim.record.packed import layout_of, packed, unpacked
from onnxfim.record.sample import Estimate, SampleResult
from onnxfim.record.settings import OUTPUT_FAMILIES
from onnxfim.relaxed.around import Norm, NormBall
from onnxfim.relaxed.network import StepNetwork, network
from onnxfim.relaxed.radius import RadiusSearch
from onnxfim.runtime.available_memory import available_memory
from onnxfim.slopes.measurer import NO_CLASSES

Array: TypeAlias = np.ndarray[Any, Any]

#: Of what is kept on disk: raise it when a rule changes, so that old radii are computed again.
VERSION = 2
METHOD = "linear relaxation, rounding of the file's numbers included"
_NAME = "bounding around the samples"
_NORMS: tuple[Norm, ...] = ("l2", "linf")
_MOST = 5e10  # multiplications of one ball: some seconds, and there are up to a dozen of them for a sample and norm
_BALLS, _RATE = 8, 2e10  # balls that a search looks at, and multiplications in a second, roughly
_MEMORY = 2**29  # bytes that the work takes beside the weights
_APART = 2.0**-20  # of scores before an activation, that float32 may give one probability
_CUT = "the run was interrupted before it was measured"


@dataclass(frozen=True)
class _KeptRadii:
    """Radii of one sample."""

    l2: Estimate
    linf: Estimate


@dataclass(frozen=True)
class _Grounds:
    """What radii are found by: the network, and by how much two scores have to differ; or why there are none."""

    network: StepNetwork | None
    apart: float = 0.0
    reason: str = ""


_known: WeakKeyDictionary[Graph, _Grounds] = WeakKeyDictionary()


def planned_seconds(context: Context, samples: int) -> float:
    """What the stage is expected to take for so many samples."""
    found = _grounds(context)
    if found.network is None:
        return 0.0
    return samples * len(_NORMS) * _BALLS * (found.network.cost / _RATE + 5e-5 * len(found.network.steps))


def _without(ground: Ground, reason: str, found: Found) -> Found:
    """What was found, each sample with the reason in place of its radii."""
    none = Estimate(None, kind="lower bound", reason=reason)
    return replace(found, results={p: _told(r, _KeptRadii(none, none)) for p, r in found.results.items()})


def _told(result: SampleResult, kept: _KeptRadii) -> SampleResult:
    return replace(result, certified_radius=kept.l2, certified_radius_linf=kept.linf)


@stage(_NAME, instead=_without)
def bound_locally(ground: Ground, found: Found) -> Found:
    """The radii of all samples that have a prediction; one of `ENDS` keeps those that were finished."""
    grounds = _grounds(ground)
    if grounds.network is None:
        return _without(ground, grounds.reason, found)
    search = _RadiiOfSamples(ground, grounds, grounds.network)
    results = dict(_without(ground, NO_CLASSES, found).results)
    cut = Estimate(None, kind="lower bound", reason=_CUT)
    positions = sorted(p for p, r in results.items() if r.prediction is not None)
    results |= {p: _told(results[p], _KeptRadii(cut, cut)) for p in positions}
    try:
        for done, p in enumerate(positions):
            ground.meter.count(done, len(positions), "samples")
            ground.say(_NAME)
            results[p] = _told(results[p], search.radii(p, int(results[p].prediction or 0)))
            ground.meter.check()
    except ENDS as end:
        return replace(found, results=results).ended(end)
    return replace(found, results=results)


class _RadiiOfSamples:
    """Finds the radii of samples, or takes those that are kept on disk."""

    def __init__(self, ground: Ground, grounds: _Grounds, network: StepNetwork) -> None:
        self._ground = ground
        scale = raw_units(ground)
        self._searches = {norm: RadiusSearch(network, NormBall(norm, scale), grounds.apart) for norm in _NORMS}
        known = (VERSION, ground.settings.tf32, fingerprint((scale, grounds.apart)), layout_of(_KeptRadii))
        self._store = ground.store(local_bounds=known) if ground.memory.keeps else None
        self._keys = ground.memory.keys(ground.X, ground.samples.held)

    def radii(self, position: int, prediction: int) -> _KeptRadii:
        """Radii of one sample in both norms: the same whichever other samples there are."""
        key = f"{self._keys.of(self._ground.sample(position))}:local:{prediction}"
        kept = None if self._store is None else self._store.content(key, partial(unpacked, _KeptRadii))
        if kept is not None:
            return kept
        x = self._ground.X[position]
        made = _KeptRadii(*(_estimate(self._searches[norm].radius(x, prediction, self._ground.meter.check)) for norm in _NORMS))
        if self._store is not None and (content := packed(made)) is not None:
            self._store.put_contents([(key, content)])
        return made


def _estimate(radius: float) -> Estimate:
    """A radius as a measure; without a value where it has no end, for no record holds an infinite number."""
    if math.isinf(radius):
        return Estimate(None, kind="lower bound", reason="the prediction is the same for every input")
    return Estimate(radius, radius, None, "lower bound", METHOD)


def _grounds(context: Context) -> _Grounds:
    """What radii are found by, or why there are none."""
    subject, info = context.subject, context.subject.info
    if subject.file is None:
        return _Grounds(None, reason="the model is a function, not a graph")
    if OUTPUT_FAMILIES[info.output_kind] != OUTPUT_FAMILIES["logits"] or info.positions != 1:
        return _Grounds(None, reason="local bounds are made for one class of each sample alone")
    if info.at is not None:
        return _Grounds(None, reason="local bounds are made for the file's own input, not for an inner value")
    if info.batch_axis:
        return _Grounds(None, reason="the output holds its batch on another axis than the first, which local bounds do not follow")
    if isinstance(context, Ground) and context.rows is not None and context.rows.dependent:
        return _Grounds(None, reason="the samples of a batch change each other's outputs")
    graph = subject.file.graph
    if graph not in _known:
        _known[graph] = _read(context, graph)
    free = available_memory()
    if _known[graph].network is not None and free is not None and free < _MEMORY:
        return _Grounds(None, reason=f"local bounds take {_MEMORY >> 20} MiB of memory, and {free >> 20} MiB are left")
    return _known[graph]


def _read(context: Context, graph: Graph) -> _Grounds:
    subject, info = context.subject, context.subject.info
    end = ending(graph, subject.output)
    activated = subject.kind.made_by(end) and end.logits is not None
    scores = end.logits if activated and end.logits is not None else subject.output
    shape = tuple(int(n) for n in context.X.shape[1:])
    try:
        found = network(graph, input_name=info.input, scores=scores, sample_shape=shape, tf32=context.settings.tf32)
    except ModelError as error:
        return _Grounds(None, reason=f"no local bounds: {error}")
    count = next((s.size for s in found.steps if s.name == scores), found.size)
    if count != info.num_outputs:
        return _Grounds(None, reason=f"no local bounds: the scores have {count} entries, the outputs {info.num_outputs}")
    if found.cost > _MOST:
        much = f"about {found.cost:.0e} multiplications for a ball, at most {_MOST:.0e} are made"
        return _Grounds(None, reason=f"the network is too large for local bounds: {much}")
    return _Grounds(found, _APART if activated else 0.0)
