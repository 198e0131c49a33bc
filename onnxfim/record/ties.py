"""Where the audited data stand on kinks of the model: ties, at which the function has one-sided slopes and no slope."""

from __future__ import annotations

from dataclasses import dataclass

from onnxfim.record.limits import Count, Part, closed


@closed
@dataclass(frozen=True)
class TiedNode:
    """A node whose operator has a kink at the data.

    ``share`` is the share of its elements (of its windows, for a pool) that are tied, the mean over the tied samples; ``samples``
    is how many samples are.
    """

    op: str
    node: str
    share: Part
    samples: Count


@closed
@dataclass(frozen=True)
class Ties:
    """Ties at the audited samples.

    ``samples`` is how many samples have any, ``kinked`` how many of them have values that depend on the side: those have the kind
    ``kinked``, or no value. ``unresolved`` is how many have no value for that reason. ``share_of_mean`` is the share of the mean of
    lambda_max that kinked samples carry, counted at the upper ends of their intervals; None where there is no mean.
    """

    audited: Count
    samples: Count
    kinked: Count
    unresolved: Count
    share_of_mean: Part | None
    nodes: tuple[TiedNode, ...] = ()
