"""Random noise as settings name it: a kind and a size, such as ``gaussian:0.1`` or ``uniform:8/255``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, cast, get_args

from onnxfim.record.limits import SIZES, sized

NoiseKind: TypeAlias = Literal["gaussian", "uniform"]
KINDS: tuple[str, ...] = get_args(NoiseKind)
_EXPECTED = "Write it such as gaussian:0.1 (its standard deviation) or uniform:8/255 (its half-width)."
_DECIMAL = r"(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_SIZE = re.compile(rf"({_DECIMAL})(?:/({_DECIMAL}))?", re.ASCII)


@dataclass(frozen=True)
class Noise:
    """Noise that is added to every number of an input, each independent of the others.

    Attributes:
        kind: Its distribution: Gaussian with mean 0, or uniform between minus and plus its size.
        size: Standard deviation of the first, half-width of the second; in raw input units where these are known.
        text: As it was asked for.
    """

    kind: NoiseKind
    size: float
    text: str

    @property
    def same(self) -> tuple[str, float]:
        """What two ways to write one noise have in common."""
        return self.kind, self.size

    @property
    def bell_shaped(self) -> bool:
        """Whether it is normally distributed, and its size a standard deviation; else it is uniform, and its size a half-width."""
        return self.kind == KINDS[0]


def read_noise(text: str) -> Noise | str:
    """The noise that a text names; or what is wrong with it, in words that follow the text.

    A size is a decimal number, or a fraction of two of them.
    """
    kind, colon, size = text.partition(":")
    if kind not in KINDS or not colon:
        return f"is not one of {', '.join(f'{k}:SIZE' for k in KINDS)}. {_EXPECTED}"
    match = _SIZE.fullmatch(size)
    if match is None:
        return f"has the size {size!r}, expected a positive number or a fraction. {_EXPECTED}"
    number, by = float(match[1]), float(match[2] or 1)
    value = number / by if by else 0.0
    if not value > 0:
        return f"has the size {size}, expected one above 0. {_EXPECTED}"
    if not sized(value):
        return f"has the size {value:.3g}, which is none to compute with. Give one from {SIZES[0]:g} to {SIZES[1]:g}."
    return Noise(cast(NoiseKind, kind), value, text)


def noises(texts: Sequence[str]) -> tuple[Noise, ...]:
    """The noises that settings name, whose texts were checked."""
    return tuple(n for text in texts if isinstance(n := read_noise(text), Noise))


def gaussian_size(text: str) -> float | None:
    """The standard deviation that a text such as ``0.25`` or ``30/255`` gives; None where it gives none."""
    found = read_noise(f"gaussian:{text.strip()}")
    return found.size if isinstance(found, Noise) else None


def what_is_wrong(texts: Sequence[str]) -> str | None:
    """Why these cannot be the noises of one audit, or None."""
    seen: dict[tuple[str, float], str] = {}
    for text in texts:
        found = read_noise(text)
        if isinstance(found, str):
            return f"{text!r} {found}"
        if found.same in seen:
            first = seen[found.same]
            return f"{text!r} is there twice{'' if first == text else f' (as {first!r} too)'}. Name each noise once."
        seen[found.same] = text
    return None
