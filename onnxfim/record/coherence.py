"""What the fields of an audit must say together, beyond the type and the limits of each."""

from __future__ import annotations

from collections.abc import Iterator

from onnxfim.record.audit import Audit, Thumbnail
from onnxfim.record.fitting import Misfit
from onnxfim.record.measures import MEASURES
from onnxfim.record.sample import SampleResult, estimate_of

#: What comparisons lead with: where samples have it, so do the statistics.
_LEADING = ("lambda_max", "lambda_max_calibrated", "lambda_max_standardised")
_ENDS = (0, 2)  # of the temperature's interval


def require_coherent(audit: Audit) -> None:
    """Raise where parts of a saved audit contradict one another so that nothing right could be shown of it.

    Raises:
        Misfit: the first of them, by its path.
    """
    for place, thumbnail in _thumbnails(audit):
        _require_pixels(thumbnail, *place)
    first: dict[int, int] = {}
    for at, sample in enumerate(audit.samples):
        if first.setdefault(sample.index, at) != at:
            raise _misfit(f"is {sample.index}, that of samples[{first[sample.index]}] too", "another", "samples", at, "index")
        _require_two_ends(at, sample)
    for measure in _LEADING:
        measured = any((e := estimate_of(s, measure)) is not None and e.value is not None for s in audit.samples)
        if measured and measure not in audit.aggregates and not audit.run.failed_stages:
            raise _misfit("is missing", "an object, for samples have values", "aggregates", measure)


def _thumbnails(audit: Audit) -> Iterator[tuple[tuple[str | int, ...], Thumbnail]]:
    """Every picture and where it stands."""
    for at, picture in enumerate(audit.thumbnails):
        yield ("thumbnails", at), picture
    for at, direction in enumerate(audit.directions):
        for name in ("input", "direction", "moved"):
            if (found := getattr(direction, name)) is not None:
                yield ("directions", at, name), found


def _require_pixels(thumbnail: Thumbnail, *place: str | int) -> None:
    expected = thumbnail.height * thumbnail.width * thumbnail.channels
    if len(thumbnail.pixels) != expected:
        raise _misfit(f"is a list of {len(thumbnail.pixels)}", f"{expected}: height × width × channels", *place, "pixels")


def _require_two_ends(at: int, sample: SampleResult) -> None:
    for measure in MEASURES:
        estimate = measure.of(sample)
        if estimate is not None and len(estimate.at_temperatures) not in _ENDS:
            found = f"is a list of {len(estimate.at_temperatures)}"
            raise _misfit(found, "none or two", "samples", at, measure.name, "at_temperatures")


def _misfit(found: str, expected: str, *place: str | int) -> Misfit:
    misfit = Misfit(found, expected)
    misfit.path = list(place)
    return misfit
