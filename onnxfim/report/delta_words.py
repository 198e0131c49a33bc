"""What deployment did, in words: the sentences that the terminal, the page and Markdown share."""

from __future__ import annotations

from onnxfim.record.decision import Aggregate
from onnxfim.record.deployment import Attribution, Carrier, Change, Deployment
from onnxfim.record.foreign_text import visible
from onnxfim.report.numbers import MISSING, count, number, percent

_STILL = "no change shown"


def headline(d: Deployment) -> str:
    """All that changed, in one sentence."""
    if d.identical:
        return f"Identical: {visible(d.second)} is the same file on the same provider, with the same outputs on every sample."
    parts = [
        accuracy_words(d.accuracy),
        agreement_words(d.agreement),
        ratio_words("sensitivity", lead(d)),
        ratio_words("flip radius", d.flip_radius),
    ]
    told = "; ".join(p for p in parts if p)
    return f"{told[:1].upper()}{told[1:]}." if told else "Nothing that deployment may have changed could be compared."


def lead(d: Deployment) -> Change:
    """The change of sensitivity that leads: the calibrated one where there is one."""
    return d.sensitivity if d.sensitivity.change.value is not None else d.sensitivity_raw


def accuracy_words(c: Change) -> str:
    """``deployment changed accuracy by −0.4 points [−1.2, 0.3] (no change shown)``."""
    if c.change.value is None:
        return ""
    return f"deployment changed accuracy by {points(c.change)}{_reading(c)}"


def agreement_words(c: Change) -> str:
    """``predictions agree on 98.6 % [97.9 %, 99.2 %]``."""
    if c.change.value is None:
        return ""
    return f"predictions agree on {share(c.change)}"


def ratio_words(what: str, c: Change) -> str:
    """``sensitivity × 1.23 [1.15, 1.31]``; with the reason where there is none."""
    if c.change.value is None:
        return f"{what}: not compared ({visible(c.reason or 'not measured')})"
    return f"{what} × {ratio(c.change)}{_reading(c)}"


def _reading(c: Change) -> str:
    if c.reading == "identical":
        return " (identical)"
    return f" ({_STILL})" if c.reading == "no change shown" else "" if c.reading != "not known" else " (no interval)"


def points(a: Aggregate) -> str:
    """A difference of shares in percentage points."""
    ends = None if a.low is None or a.high is None else f" [{_point(a.low)}, {_point(a.high)}]"
    return f"{_point(a.value)} points{ends or ''}"


def _point(value: float | None) -> str:
    return MISSING if value is None else f"{100 * value:+.1f}".replace("-", "−").replace("+0.0", "0.0").replace("−0.0", "0.0")


def ratio(a: Aggregate) -> str:
    """A ratio with its interval."""
    ends = "" if a.low is None or a.high is None or a.low == a.high else f" [{number(a.low)}, {number(a.high)}]"
    return f"{number(a.value)}{ends}"


def share(a: Aggregate) -> str:
    """A share with its interval."""
    known = a.low is not None and a.high is not None and a.low != a.high
    return f"{percent(a.value)} [{percent(a.low)}, {percent(a.high)}]" if known else percent(a.value)


def reading_words(c: Change) -> str:
    """What the interval says, for a table: never colour alone."""
    if c.change.value is None:
        return visible(c.reason or "not measured")
    if c.form == "share" and c.reading != "identical":
        return "all agree" if c.change.value == 1 else "some changed"
    return {"rose": "rose", "fell": "fell", "identical": "identical", "not known": "no interval: too few samples"}.get(
        c.reading, _STILL
    )


def outcome_words(d: Deployment) -> str:
    """The counts behind the accuracy."""
    o = d.outcomes
    if o is None:
        return ""
    return (
        f"Of {count(d.accuracy.count, 'labelled sample')}: both right {o.both_right:,}, only the first right {o.only_first:,}, "
        f"only the second right {o.only_second:,}, both wrong {o.both_wrong:,}."
    )


def flip_words(d: Deployment) -> str:
    """Which classes turn into which."""
    if not d.flips:
        return ""
    told = [f"{visible(f.first_name)} → {visible(f.second_name)} {f.count:,} of {f.of:,}" for f in d.flips]
    return f"Predictions that changed: {', '.join(told)}."


def attribution_words(a: Attribution) -> str:
    """What was found, in a sentence or two."""
    if a.reason is not None:
        return f"No attribution: {visible(a.reason)}."
    if not a.nodes:
        return "No node could be restored."
    first = a.nodes[0]
    told = f"{visible(first.node)} ({first.operator}) alone changes the scores by {squared(first.alone)}"
    whole = (
        f"of the whole file’s {squared(a.change)}" if a.change.value is not None else "; the whole file’s change was not resolved"
    )
    return f"{told}, {whole}." if a.change.value is not None else f"{told}{whole}."


def squared(a: Aggregate) -> str:
    """A relative squared change as the length that it is the square of, in percent, with its interval."""
    if a.value is None:
        return MISSING
    ends = "" if a.low is None or a.high is None else f" [{_root(a.low)}, {_root(a.high)}]"
    return f"{_root(a.value)}{ends}"


def _root(value: float) -> str:
    """``√`` of a square that noise may have made negative: then none was resolved."""
    return percent(max(value, 0.0) ** 0.5)


def rise(a: Aggregate) -> str:
    """A change of ``ln λ_max`` as a factor, with its interval."""
    if a.value is None:
        return MISSING
    from math import exp

    ends = "" if a.low is None or a.high is None else f" [{number(exp(min(a.low, 700)))}, {number(exp(min(a.high, 700)))}]"
    return f"× {number(exp(min(a.value, 700)))}{ends}"


def node_line(k: int, c: Carrier) -> str:
    """One node of the ranking on one line."""
    return f"{k}. {visible(c.node)} ({c.operator}): alone {squared(c.alone)} of the scores, sensitivity {rise(c.logarithm)}"
