"""Certificates of the smoothed classifiers: rows with Gaussian noise through the file as it runs, a forward pass for each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np

from onnxfim.auditing.context import ENDS, Found, Ground
from onnxfim.auditing.final_results import FinalSmoothed
from onnxfim.auditing.instruments import raw_units
from onnxfim.auditing.stages import stage
from onnxfim.record import streams
from onnxfim.record.guarantees import Smoothed
from onnxfim.record.sample import SampleResult
from onnxfim.record.smoothing_terms import CHOOSING
from onnxfim.runtime.watching import current_watch
from onnxfim.slopes.measurer import NO_CLASSES
from onnxfim.slopes.smoothed import NoisyVotes, certified

Array: TypeAlias = np.ndarray[Any, Any]

_CALLS = 4  # of full rows, in a round of a block: what is lost where the run ends in it stays small
_CUT = "the run was interrupted before it was certified"
_DEPENDS = "the answer to a row depends on its neighbours in the batch: there is no function to smooth"


def _untried(ground: Ground, reason: str, found: Found) -> Found:
    """What was found, each sample with the reason in place of what it has no certificate of."""
    none = tuple(Smoothed(sigma, None, 0, 0, 0.0, 0.0, reason) for sigma in ground.settings.smoothing)
    return replace(found, results={p: replace(r, smoothed=none) for p, r in found.results.items()})


@stage("certifying by smoothing", instead=_untried)
def smooth(ground: Ground, found: Found) -> Found:
    """The certificates of all samples that have a prediction; one of `ENDS` keeps those that were finished."""
    if ground.rows is not None and ground.rows.dependent:
        return _untried(ground, _DEPENDS, found)
    results = dict(_untried(ground, NO_CLASSES, found).results)
    positions = sorted(p for p, r in results.items() if r.prediction is not None)
    cut = _untried(ground, _CUT, replace(found, results={p: results[p] for p in positions}))
    results |= cut.results
    sigmas = ground.settings.smoothing
    size = 1 if current_watch().tries else max(1, _CALLS * ground.forward.batch // CHOOSING)
    total, done = len(positions) * len(sigmas), 0
    try:
        for at, sigma in enumerate(sigmas):
            finals = FinalSmoothed(ground, sigma)
            for start in range(0, len(positions), size):
                ground.meter.count(done, total, "samples")
                ground.say("certifying by smoothing")
                some = positions[start : start + size]
                known = finals.known(some)
                if block := [p for p in some if p not in known]:
                    with current_watch().about(block):
                        made = dict(zip(block, _certified(ground, block, sigma), strict=True))
                    finals.keep(made)
                    known |= made
                for p, certificate in known.items():
                    results[p] = _with(results[p], at, certificate)
                done += len(some)
                ground.meter.check()
    except ENDS as end:
        return replace(found, results=results).ended(end)
    return replace(found, results=results)


def _with(result: SampleResult, at: int, certificate: Smoothed) -> SampleResult:
    """The result with a certificate in its place."""
    return replace(result, smoothed=(*result.smoothed[:at], certificate, *result.smoothed[at + 1 :]))


def _certified(ground: Ground, block: Sequence[int], sigma: float) -> list[Smoothed]:
    """Certificates of the samples at these positions: their rows fill the calls together."""
    settings, at = ground.settings, np.array(block, np.int64)
    streams_of = [[settings.seed, ground.index(p), streams.SMOOTHING] for p in block]
    X = np.ascontiguousarray(ground.X[at])
    votes = NoisyVotes(ground.forward, ground.reader, X, sigma * raw_units(ground), streams_of, at)
    return certified(votes, len(block), sigma, settings.certify_budget)
