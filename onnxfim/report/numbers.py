"""Numbers as they are printed: three significant digits, plain intervals."""

from __future__ import annotations

import math
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal

from onnxfim.record.foreign_text import visible
from onnxfim.record.measures import BY_NAME, STATISTICS

_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
MISSING = "not measured"
#: What statistics of lengths that a search found are of.
SMALLEST_FOUND = "of the smallest found, an upper bound of each"
#: What statistics of lengths that were certified are of.
CERTIFIED = "of the lengths certified, a lower bound of each"
_STATISTIC_LABELS = {s.name: s.label for s in STATISTICS}


def what_of(measure: str) -> str:
    """What the statistics of a measure are of, where each of its values bounds another number; empty for others."""
    told = BY_NAME.get(measure)
    if told is None or not told.own_bounds:
        return ""
    return SMALLEST_FOUND if told.of_what_was_found else CERTIFIED


def number(value: float | None, *, digits: int = 3) -> str:
    """A value with ``digits`` significant digits; powers of ten outside 0.001 … 999,999; ``not measured`` for None."""
    if value is None:
        return MISSING
    if value == 0 or not math.isfinite(value):
        return "0" if value == 0 else MISSING
    mantissa, exponent_text = f"{value:.{digits - 1}e}".split("e")
    exponent = int(exponent_text)
    if -3 <= exponent < 6:
        text = f"{float(f'{mantissa}e{exponent}'):,.{max(0, digits - 1 - exponent)}f}"
    else:
        text = f"{mantissa}×{power_of_ten(exponent)}"
    return text.replace("-", "−")


def number_below(value: float) -> str:
    """A length of at least ``value``'s three digits, rounded down: what is guaranteed must not grow in print."""
    return number(_towards(value, ROUND_FLOOR))


def number_above(value: float) -> str:
    """The same, rounded up: what was found must not shrink in print."""
    return number(_towards(value, ROUND_CEILING))


def _towards(value: float, rounding: str) -> float:
    """A value with three significant digits; its shortest decimal form is rounded, so that 0.25 stays what it is."""
    exact = Decimal(repr(float(value)))
    return float(exact.quantize(Decimal(1).scaleb(exact.adjusted() - 2), rounding=rounding)) if exact else 0.0


def short(value: float) -> str:
    """A round value (a tick, an example) without trailing zeros: ``0.05``, ``20``, ``10⁻⁶``."""
    if value == 0:
        return "0"
    exponent = math.floor(math.log10(abs(value)) + 1e-9)
    if -3 <= exponent < 6:
        return f"{value:,.{max(0, 2 - exponent)}f}".rstrip("0").rstrip(".") if exponent < 2 else f"{value:,.0f}"
    mantissa, _, exponent_text = f"{value:.2e}".partition("e")
    mantissa, exponent = mantissa.rstrip("0").rstrip("."), int(exponent_text)
    return power_of_ten(exponent) if mantissa == "1" else f"{mantissa}×{power_of_ten(exponent)}"


def power_of_ten(exponent: int) -> str:
    """``10⁻³⁵`` with superscript digits, so that it reads the same in HTML, in SVG and when copied."""
    return "10" + str(exponent).translate(_SUPERSCRIPT)


def interval(low: float | None, high: float | None) -> str | None:
    """``0.98 to 1.41``, or None where an end is missing."""
    return None if low is None or high is None else f"{number(low)} to {number(high)}"


def known_ends(low: float | None, high: float | None) -> str | None:
    """The interval, ``at least 0.98`` or ``at most 1.41`` where one end is missing, None where both are."""
    if low is None or high is None:
        return None if low is None and high is None else f"at least {number(low)}" if high is None else f"at most {number(high)}"
    return interval(low, high)


def spread(low: float | None, high: float | None) -> str | None:
    """The interval, or None where an end is missing or both print alike: the number beside it says it all."""
    return None if low is None or high is None or number(low) == number(high) else interval(low, high)


def level_note(confidence: float) -> str:
    """What stands behind an interval in a column of 95 % ones, ``(90 %)`` with a space before it, where few samples give less."""
    return f" ({100 * confidence:.0f}\u00a0%)" if 0 < confidence < 0.95 else ""


def two_decimals(value: float, *, sign: bool = False) -> str:
    """``0.25``, ``−0.10``; with ``sign`` also ``+0.25``: for values whose place on a fixed scale matters."""
    return f"{value:{'+' if sign else ''}.2f}".replace("-", "−")


def level_words(confidence: float) -> str:
    """A level of confidence as people write it: ``95 %``, ``99.9 %``."""
    return f"{float(f'{100 * confidence:.6g}'):g}\u00a0%"


def percent(share: float | None) -> str:
    """A share of one as a percentage with at most one decimal."""
    if share is None:
        return MISSING
    scaled = 100 * share
    if 0 < scaled < 0.1:
        return "<\u00a00.1\u00a0%"
    if 99.95 <= scaled < 100:
        return ">\u00a099.9\u00a0%"
    return f"{scaled:,.{1 if 0 < abs(scaled) < 100 else 0}f}\u00a0%".replace("-", "−")


def percent_interval(low: float | None, high: float | None) -> str | None:
    """``93.1 % to 98.4 %``, or None where an end is missing."""
    return None if low is None or high is None else f"{percent(low)} to {percent(high)}"


def p_words(p: float) -> str:
    """``p = 0.031``, ``p < 10⁻⁹``: no test of so few samples is believed further."""
    return "p < 10⁻⁹" if p < 1e-9 else f"p = {number(p, digits=2)}"


def count(value: int, noun: str, plural: str | None = None) -> str:
    """``1 sample``, ``1,000 samples``."""
    return f"{value:,} {noun if value == 1 else plural or noun + 's'}"


def seconds(value: float) -> str:
    """A duration in the largest unit that leaves a number above one."""
    if value < 120:
        return f"{number(value)} s"
    minutes, rest = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def size(count_of_bytes: int) -> str:
    """A file size in decimal units."""
    scaled = float(count_of_bytes)
    for unit in ("bytes", "kB", "MB"):
        if scaled < 1000:
            return f"{count_of_bytes} bytes" if unit == "bytes" else f"{number(scaled)} {unit}"
        scaled /= 1000
    return f"{number(scaled)} GB"


def measure_label(name: str) -> str:
    """What a measure is called in print; one that is not in the table (from a later version's file) speaks for itself."""
    known = BY_NAME.get(name)
    return known.label if known is not None else visible(name).replace("_", " ").capitalize()


def inline_label(name: str) -> str:
    """A measure's name within a sentence: ``raw λ_max``, ``boundary distance``."""
    label = measure_label(name)
    quantity, _, which = label.partition(", ")
    return f"{which} {quantity}" if quantity == "λ_max" and which else _lowered(label)


def statistic_label(measure: str, statistic: str) -> str:
    """What a statistic of a measure is called in print: ``Mean λ_max, raw``, ``Median boundary distance``."""
    return f"{_STATISTIC_LABELS[statistic]} {_lowered(measure_label(measure))}"


def _lowered(label: str) -> str:
    return label[:1].lower() + label[1:]
