"""What a bound is: its figures, the factors it is made of, and their JSON form."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from typing import TypeAlias

from onnxfim.errors import OutputError

Json: TypeAlias = "dict[str, object]"

#: Written for log10 of zero (a map that is constant): an upper bound of it, and a number in every JSON reader.
LOG10_ZERO = -1000.0


@dataclass(frozen=True)
class Factor:
    """One operator's norm.

    ``kind`` is ``linear``, ``activation``, ``pooling``, ``normalisation``, ``attention`` or ``product``; ``method`` says
    how the norm
    was bounded; ``rigorous`` is False only for figures shown for information.
    """

    node: str
    op: str
    shape: tuple[int, ...]
    log10_norm: float
    method: str
    kind: str
    rigorous: bool = True
    note: str = ""


@dataclass(frozen=True)
class Share:
    """How much log10 L grows from the previous value that all paths cross to the output of ``node``, in graph order."""

    node: str
    op: str
    log10_gain: float
    log10_total: float
    nodes: int


@dataclass(frozen=True)
class Bound:
    """An upper bound of the Lipschitz constant of the logits (L2), and of the Fisher information, ``‖F‖ ≤ ½L²``.

    ``available`` is False where an operator has no finite bound: ``reason`` names it, the two figures are None, and ``factors``
    and ``shares`` hold what could be bounded. ``log10_lipschitz`` is `LOG10_ZERO` where the logits do not depend on the input.
    """

    available: bool
    reason: str
    log10_lipschitz: float | None
    log10_fisher: float | None
    factors: tuple[Factor, ...]
    assumptions: tuple[str, ...]
    shares: tuple[Share, ...] = field(default=())

    def to_json(self) -> Json:
        """The bound as JSON values; every number is finite."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Json) -> Bound:
        """The bound that `to_json` wrote.

        Raises:
            OutputError: the data has another form.
        """
        try:
            read = json.loads(json.dumps(data))
            factors = tuple(Factor(**{**f, "shape": tuple(f["shape"])}) for f in read.pop("factors"))
            shares = tuple(Share(**s) for s in read.pop("shares"))
            return cls(**{**read, "factors": factors, "shares": shares, "assumptions": tuple(read["assumptions"])})
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise OutputError(f"bound: cannot be read back ({error}); a bound written by to_json was expected.") from error


def log10(value: float) -> float:
    """log10 rounded up; -inf for zero."""
    return -math.inf if value == 0 else up(math.log10(value))


def up(value: float) -> float:
    """A float above what ``value`` was rounded from."""
    return value if math.isinf(value) else value + 4 * math.ulp(max(1.0, abs(value)))


def times(*logs: float) -> float:
    """log10 of a product; a factor without a bound (inf) outweighs a factor of zero."""
    return math.inf if math.inf in logs else up(math.fsum(logs)) if -math.inf not in logs else -math.inf


def plus(*logs: float) -> float:
    """log10 of a sum."""
    top = max(logs, default=-math.inf)
    if math.isinf(top):
        return top
    return up(top + math.log10(math.fsum(10 ** max(v - top, -330) for v in logs)))


def root_sum(*logs: float) -> float:
    """log10 of the root of the sum of squares."""
    return up(plus(*(2 * v for v in logs)) / 2)


def shown(log: float) -> float:
    """A finite number for JSON, still an upper bound."""
    return max(log, LOG10_ZERO)
