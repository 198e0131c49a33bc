"""What the weights alone say: the architecture, the upper bound and the factors it is made of."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Annotated

from onnxfim.errors import OutputError
from onnxfim.record.fitting import Misfit, from_plain
from onnxfim.record.limits import ALWAYS, Count, Limits, Log10, needed_where

#: Families of networks, as `architecture` tells them apart.
FAMILIES = ("mlp", "vgg", "resnet", "densenet", "transformer", "recurrent", "hybrid", "unknown")


#: Written for log10 of zero (a map that is constant): an upper bound of it, and a number in every JSON reader.
LOG10_ZERO = -1000.0


@dataclass(frozen=True)
class Factor:
    """One operator's norm.

    ``kind`` is ``linear``, ``activation``, ``pooling``, ``normalisation``, ``attention``, ``product`` or ``recurrent``;
    ``method`` says how the norm was bounded; ``rigorous`` is False only for figures shown for information.
    """

    node: str
    op: str
    shape: tuple[int, ...]
    log10_norm: Log10
    method: str
    kind: str
    rigorous: bool = field(default=True, metadata=ALWAYS)
    note: str = ""


@dataclass(frozen=True)
class Share:
    """How much log10 L grows from the previous value that all paths cross to the output of ``node``, in graph order."""

    node: str
    op: str
    log10_gain: Log10
    log10_total: Log10
    nodes: Count


@dataclass(frozen=True)
class Bound:
    """An upper bound of the Lipschitz constant of the logits (L2), and of the Fisher information, ``‖F‖ ≤ ½L²``.

    ``available`` is False where an operator has no finite bound: ``reason`` names it, the two figures are None, and ``factors``
    and ``shares`` hold what could be bounded. ``log10_lipschitz`` is `LOG10_ZERO` where the logits do not depend on the input.
    ``of_what_was_read`` is False where an audit took slopes of another value than the one that is bounded (of log-probabilities,
    while the value before their LogSoftmax is bounded): F is the same, the Lipschitz constant is not.
    """

    available: bool
    reason: str = field(metadata=needed_where("available", False))
    log10_lipschitz: Log10 | None
    log10_fisher: Log10 | None
    factors: tuple[Factor, ...]
    assumptions: tuple[str, ...]
    shares: tuple[Share, ...] = field(default=())
    of_what_was_read: bool = True

    def to_json(self) -> dict[str, object]:
        """The bound as JSON values; every number is finite."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, object]) -> Bound:
        """The bound that `to_json` wrote.

        Raises:
            OutputError: the data has another form.
        """
        try:
            found: Bound = from_plain(cls, json.loads(json.dumps(data)))
        except (Misfit, TypeError, ValueError, RecursionError) as error:
            raise OutputError(f"bound: cannot be read back ({error}); a bound written by to_json was expected.") from error
        return found


@dataclass(frozen=True)
class ClosedForm:
    """One family's closed form on the layers of a model, log10; None where the model has no layer of the kind it needs."""

    family: str
    formula: str
    log10_lipschitz: Log10 | None


@dataclass(frozen=True)
class Architecture:
    """One of `FAMILIES`, and plain sentences with the node names and counts that led to it."""

    family: Annotated[str, Limits(choices=FAMILIES)]
    evidence: tuple[str, ...]

    def to_json(self) -> dict[str, object]:
        """The architecture as JSON values."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(self).items()}

    @classmethod
    def from_json(cls, data: dict[str, object]) -> Architecture:
        """The architecture that `to_json` wrote.

        Raises:
            OutputError: the data has another form.
        """
        try:
            found: Architecture = from_plain(cls, json.loads(json.dumps(data)))
        except (Misfit, TypeError, ValueError, RecursionError) as error:
            raise OutputError(
                f"architecture: cannot be read back ({error}); a family and sentences were expected, as to_json writes them."
            ) from error
        return found
