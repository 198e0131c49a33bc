"""What the fields of an audit must say together, beyond the type and the limits of each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from onnxfim.record.audit import Audit, Thumbnail
from onnxfim.record.fitting import Misfit
from onnxfim.record.measures import MEASURES
from onnxfim.record.sample import Estimate, SampleResult, estimate_of

#: What comparisons lead with: where samples have it, so do the statistics.
_LEADING = ("lambda_max", "lambda_max_calibrated", "lambda_max_standardised")
_LOGARITHM = "log10_fisher_bound"  # the one measure that may be negative
_ENDS = (0, 2)  # of the temperature's interval


def require_coherent(audit: Audit) -> None:
    """Raise where parts of a saved audit contradict one another so that nothing right could be shown of it.

    Raises:
        Misfit: the first of them, by its path.
    """
    for place, thumbnail in _thumbnails(audit):
        _require_pixels(thumbnail, *place)
    _require_apart(audit.samples)
    for measure in _LEADING:
        measured = any((e := estimate_of(s, measure)) is not None and e.value is not None for s in audit.samples)
        if measured and measure not in audit.aggregates and not audit.run.failed_stages:
            raise _misfit("is missing", "an object, for samples have values", "aggregates", measure)


def require_measured(samples: Sequence[SampleResult], thumbnails: Sequence[Thumbnail]) -> None:
    """Raise where results of which statistics are to be taken cannot be.

    Raises:
        Misfit: the first of them, by its path.
    """
    for at, thumbnail in enumerate(thumbnails):
        _require_pixels(thumbnail, "thumbnails", at)
    _require_apart(samples)
    for at, sample in enumerate(samples):
        for measure in MEASURES:
            if (estimate := measure.of(sample)) is not None and measure.name != _LOGARITHM:
                _require_in_order(estimate, "samples", at, measure.name)


def _require_in_order(estimate: Estimate, *place: str | int) -> None:
    if estimate.value is not None and estimate.value < 0:
        raise _misfit(f"is {estimate.value:g}", "0 or more", *place, "value")
    if estimate.low is not None and estimate.high is not None and estimate.low > estimate.high:
        raise _misfit(f"is {estimate.low:g}", f"at most the upper end, {estimate.high:g}", *place, "low")


def _require_apart(samples: Sequence[SampleResult]) -> None:
    first: dict[int, int] = {}
    for at, sample in enumerate(samples):
        if first.setdefault(sample.index, at) != at:
            raise _misfit(f"is {sample.index}, that of samples[{first[sample.index]}] too", "another", "samples", at, "index")
        _require_two_ends(at, sample)


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
