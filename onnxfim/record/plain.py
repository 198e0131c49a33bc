"""Frozen dataclasses as plain dicts and lists; `record.fitting` is the way back."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any


def to_plain(value: Any) -> Any:
    """Frozen dataclasses, tuples and mappings as dicts and lists; numbers that are not finite become None."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(k): to_plain(v) for k, v in value.items()}
    if isinstance(value, (tuple, list)):
        return [to_plain(v) for v in value]
    if isinstance(value, (bool, str, int)) or value is None:
        return value
    if hasattr(value, "item"):  # a number of NumPy: its own type matters, true is not 1
        return to_plain(value.item())
    number = float(value)
    return number if math.isfinite(number) else None
