"""Sizes as people write them: a decimal, or a fraction such as 8/255."""

from __future__ import annotations

import math
import re

from onnxfim.record.limits import sized

_NUMBER = r"(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_SIZE = re.compile(rf"\s*({_NUMBER})\s*(?:/\s*({_NUMBER})\s*)?")


def size_given(text: str) -> float | None:
    """The size above 0 that a text such as ``0.25`` or ``8/255`` gives; None where it gives none that can be computed with.

    Examples:
        >>> size_given("8/255") == 8 / 255, size_given("1/0"), size_given("-1")
        (True, None, None)
    """
    match = _SIZE.fullmatch(text)
    if match is None:
        return None
    over = float(match[2] or 1)
    size = float(match[1]) / over if over else math.inf
    return size if size > 0 and math.isfinite(size) and sized(size) else None
