"""Where a file is audited that is not audited at its input: at an inner value, whose units are those of every number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from onnxfim.record.limits import Part, closed

#: What an audit's values are in where nothing else is said.
INPUT_UNIT = "model input unit"
#: What lengths are in where the scale of the raw inputs is known.
RAW_UNIT = "raw input unit"


@dataclass(frozen=True)
class AuditedFrom:
    """The inner value that a file is audited from, and what stands before it.

    Attributes:
        tensor: Name of the value; `ModelInfo.input` is its name too, with its type and shape.
        kind: Rows of a table that tokens are looked up in, the levels of an image, or any value that was named.
        front: What stands before it, in words.
        unit: One of the value, in words that follow "nats per squared".
        input: The file's own input, which the data are given for.
        input_dtype: Its element type.
        input_shape: Its shape with the batch; a size that is open is None or its name.
        named: Whether a person named the value.
    """

    tensor: str
    kind: Literal["tokens", "levels", "inner"]
    front: str
    unit: str
    input: str
    input_dtype: str
    input_shape: tuple[int | str | None, ...]
    named: bool

    @property
    def units(self) -> str:
        """Several of them."""
        first, space, rest = self.unit.partition(" ")
        return f"{first}s{space}{rest}"


@closed
@dataclass(frozen=True)
class Position:
    """One position of a sequence at a sample: the whole number that the file was fed there, and its part of the worst direction.

    ``share`` is the position's part of the direction's squared length; all of a sample's add up to 1.
    """

    token: int
    share: Part


def units_of_lengths(entry: AuditedFrom | None, *, raw: bool) -> str:
    """What lengths are in, several of them: raw input units where their scale is known (``raw``), else those of what is moved."""
    return f"{RAW_UNIT}s" if raw else in_units_of(entry, f"{INPUT_UNIT}s")


def in_units_of(entry: AuditedFrom | None, text: str) -> str:
    """Text about values per model input unit, in the units that they have at an entry."""
    if entry is None:
        return text
    return text.replace(f"{INPUT_UNIT}s", entry.units).replace(INPUT_UNIT, entry.unit)
