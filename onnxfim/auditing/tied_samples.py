"""Which audited samples are tied, and what the record tells of it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np

from onnxfim.gradients.kinks import KinkNode
from onnxfim.record.sample import SampleResult
from onnxfim.record.ties import TiedNode, Ties

Array: TypeAlias = np.ndarray[Any, Any]

#: Of a node's elements: fewer ties are chance in a large network, and move no value.
LEAST_SHARE = 1e-4
#: How the reason of a value that is missing at a kink begins.
NO_SLOPE = "the function has no slope here"
_SHOWN = 5


@dataclass(frozen=True)
class TiedSamples:
    """What was found at the audited samples.

    Attributes:
        at: Share of tied elements of each node, (nodes,), by the position of each tied sample.
        nodes: The nodes.
        audited: How many samples were looked at; None where the graph could not be.
    """

    at: Mapping[int, Array] = field(default_factory=dict)
    nodes: tuple[KinkNode, ...] = ()
    audited: int | None = None

    def __contains__(self, position: int) -> bool:
        return position in self.at

    def untied(self, positions: Array) -> Array:
        """Those of the positions whose samples have no tie."""
        return np.array([i for i in positions if int(i) not in self.at], int)

    def record(self, results: Sequence[SampleResult], indices: Mapping[int, int]) -> Ties | None:
        """What the audit tells of it.

        Args:
            results: Of all samples that were measured.
            indices: The sample's index in the data by position.
        """
        if self.audited is None:
            return None
        found = Ties(self.audited, len(self.at), kinked=0, unresolved=0, share_of_mean=None, nodes=self._worst())
        return with_kinks(found, {indices[p] for p in self.at}, results)

    def _worst(self) -> tuple[TiedNode, ...]:
        """The nodes with the most ties."""
        if not self.at:
            return ()
        shares = np.array(list(self.at.values()))  # (samples, nodes)
        mean, count = shares.mean(axis=0), (shares > LEAST_SHARE).sum(axis=0)
        order = [int(k) for k in np.argsort(-mean, kind="stable")[:_SHOWN] if count[k]]
        return tuple(TiedNode(self.nodes[k].op, self.nodes[k].name, float(mean[k]), int(count[k])) for k in order)


def with_kinks(ties: Ties, tied: Collection[int], results: Sequence[SampleResult]) -> Ties:
    """What is told of ties, with the results of all samples that were measured; ``tied`` are the indices of those on ties."""
    kinked = [r for r in results if r.index in tied and is_kinked(r)]
    return replace(
        ties,
        kinked=len(kinked),
        unresolved=sum(r.lambda_max.value is None for r in kinked),
        share_of_mean=_share_of_mean(results, {r.index for r in kinked}),
    )


def is_kinked(result: SampleResult) -> bool:
    """Whether a sample's value depends on the side from which it is looked at."""
    value = result.lambda_max
    return value.kind == "kinked" or (value.value is None and (value.reason or "").startswith(NO_SLOPE))


def _share_of_mean(results: Sequence[SampleResult], kinked: set[int]) -> float | None:
    known = {r.index: r.lambda_max.value for r in results if r.lambda_max.value is not None}
    highs = {r.index: r.lambda_max.high or 0.0 for r in results if r.index in kinked and r.lambda_max.value is not None}
    lost = len(kinked) - len(highs)
    if not known:
        return 1.0 if lost else None
    # A sample without a value is taken to weigh as much as the others do on average.
    mean = sum(known.values()) / len(known)
    total = sum(highs.get(i, v) for i, v in known.items()) + lost * mean
    return min((sum(highs.values()) + lost * mean) / total, 1.0) if total > 0 else None
