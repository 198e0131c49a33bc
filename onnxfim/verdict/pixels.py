"""Whether inputs are pictures of a known range, from a finished record: what one of the 255 steps from black to white is there."""

from __future__ import annotations

import math

from onnxfim.record.audit import Audit
from onnxfim.record.reference import task_of

#: Kinds of inputs that have the shape of pictures and are none.
_NO_PICTURES = frozenset({"spectrogram", "series", "tabular", "text"})
_CHANNELS = (1, 3, 4)
_LEAST_SIDE = 8
_DARKEST, _ROUNDED = 0.5, 0.005  # of the range from black to white: what data must fill of it, and may be beyond it
_NORMALISED = 1.3  # the same of normalised channels, whose ranges lie beside one another


def pixel_level(audit: Audit) -> float | None:
    """How many units, raw ones where these are known, else the model's, one of the 255 steps from black to white is.

    None where the inputs are no pictures, by their shape or what they are shown as, or their range is neither 0 to 1 nor 0 to 255.
    """
    data = audit.data
    if data.synthetic or not _pictures(audit):
        return None
    ends = scale_ends(audit)
    if ends is not None and audit.model.at is None:
        span = (data.input_max - data.input_min) / math.sqrt(math.prod(ends))
        return next((white / 255 for white in (1.0, 255.0) if _DARKEST * white <= span <= _NORMALISED * white), None)
    given = audit.settings.attack_range
    for white in (1.0, 255.0):
        fits = -_ROUNDED * white <= data.input_min and _DARKEST * white <= data.input_max <= (1 + _ROUNDED) * white
        if given == (0.0, white) or fits:
            return white / 255
    return None


def scale_ends(audit: Audit) -> tuple[float, float] | None:
    """How many model units one raw unit is, least and most over the channels; None where the two are one, or it is not known."""
    scale = [abs(s) for s in audit.settings.input_scale or (1.0,)]
    return None if all(s == 1 for s in scale) or min(scale) == 0 else (min(scale), max(scale))


def no_level(audit: Audit) -> str:
    """Why `pixel_level` is None of pictures, and what mends it."""
    data = audit.data
    return (
        f"the inputs go from {data.input_min:.3g} to {data.input_max:.3g}, neither 0 to 1 nor 0 to 255: "
        "let onnxfim normalise them (--mean, --std), or say how they were (--already-normalised), so that pixels are known"
    )


def _pictures(audit: Audit) -> bool:
    shape = audit.data.shape
    if task_of(shape, audit.model.num_outputs) is not None:
        return True
    if audit.data.input_kind in _NO_PICTURES:
        return False
    if len(shape) == 3:
        sides = (shape[1:], shape[:2])
        return any(c in _CHANNELS and min(side) >= _LEAST_SIDE for c, side in zip((shape[0], shape[2]), sides, strict=True))
    return len(shape) == 2 and min(shape) >= _LEAST_SIDE
