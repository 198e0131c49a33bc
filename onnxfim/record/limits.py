"""What a record's fields may hold beyond their types; the published schema is made of it.

Limits stand beside the type (``Count``), or, where a field declares more than that, in its metadata under the names of `Limits`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, TypeAlias, TypeVar

Record = TypeVar("Record", bound="type[Any]")


@dataclass(frozen=True)
class Limits:
    """Limits of a number, and the values that one of a few must be.

    Attributes:
        least, most: Smallest and largest value.
        over, under: Values that it must be above and below.
        choices: All values that it may have; empty for any.
    """

    least: float | None = None
    most: float | None = None
    over: float | None = None
    under: float | None = None
    choices: tuple[object, ...] = ()


#: The whole numbers that other readers of JSON and the runtime's own integers hold.
LEAST, LARGEST = -(2**63), 2**63 - 1
#: What a size in some unit can be, but for zero: the fourth powers of what is computed with it are still numbers of float64.
SIZES = (1e-30, 1e30)
Count: TypeAlias = Annotated[int, Limits(least=0)]
Positive: TypeAlias = Annotated[int, Limits(least=1)]
Byte: TypeAlias = Annotated[int, Limits(least=0, most=255)]
NotNegative: TypeAlias = Annotated[float, Limits(least=0)]
AboveZero: TypeAlias = Annotated[float, Limits(over=0)]
#: A logarithm to base 10, of whatever a network's norms multiply to.
Log10: TypeAlias = Annotated[float, Limits(least=-1e6, most=1e6)]
Part: TypeAlias = Annotated[float, Limits(least=0, most=1)]
Coefficient: TypeAlias = Annotated[float, Limits(least=-1, most=1)]

#: Metadata of a field that has a default and is yet in every file; other fields with a default may be missing in older ones.
ALWAYS = {"always": True}


def needed_where(other: str, value: object) -> dict[str, Any]:
    """Metadata of a text that is not empty where the field ``other`` has ``value``."""
    return {"needed_where": (other, value)}


def closed(record: Record) -> Record:
    """Marks a record that takes no field beside its own, not even from a later minor version."""
    record.takes_no_other_field = True
    return record


def in_64_bits(value: int) -> bool:
    """Whether a whole number lies from `LEAST` to `LARGEST`."""
    return LEAST <= value <= LARGEST


def sized(value: float) -> bool:
    """Whether a number is zero or has a size to compute with; infinities and NaN have none."""
    least, most = SIZES
    return value == 0 or least <= abs(value) <= most
