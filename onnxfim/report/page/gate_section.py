"""Gates and the baseline's comparison in words, for the page of an audit."""

from __future__ import annotations

from dataclasses import dataclass

from onnxfim.record.audit import Audit
from onnxfim.record.decision import Aggregate, BaselineComparison
from onnxfim.record.foreign_text import visible
from onnxfim.report.gate_words import allowed_rise, change_words, units_of, value_words
from onnxfim.report.numbers import count, inline_label, interval, number, percent
from onnxfim.report.page.quantities import UNBOUNDED, of_share
from onnxfim.report.vocabulary import VERDICT_LEVELS, VERDICT_WORDS


@dataclass(frozen=True)
class GateLine:
    """A gate as printed; ``comparison`` is what it was decided on."""

    text: str
    verdict: str
    level: str
    word: str
    comparison: str
    advice: str


@dataclass(frozen=True)
class MovementLine:
    """One sample then and now."""

    index: int
    name: str
    baseline: str
    current: str


@dataclass(frozen=True)
class DifferenceLine:
    """Something that differs from the baseline."""

    name: str
    baseline: str
    current: str


@dataclass(frozen=True)
class BaselineView:
    """The comparison with a baseline as printed."""

    verdict: str
    word: str
    headline: str
    sentences: tuple[str, ...]
    movements: tuple[MovementLine, ...]
    differences: tuple[DifferenceLine, ...]


def gate_lines(audit: Audit) -> tuple[GateLine, ...]:
    """The gates in the order they were given."""
    return tuple(
        GateLine(
            text=visible(g.text),
            verdict=g.verdict,
            level=VERDICT_LEVELS[g.verdict],
            word=VERDICT_WORDS[g.verdict],
            comparison=value_words(g, units_of(audit, g.name)),
            advice=visible(g.advice or ""),
        )
        for g in audit.gates
    )


def baseline_view(audit: Audit) -> BaselineView | None:
    """The comparison with the baseline, or None where there is none."""
    c = audit.comparison
    if c is None:
        return None
    return BaselineView(
        c.verdict,
        VERDICT_WORDS[c.verdict],
        baseline_headline(c),
        (*_sentences(c), *([visible(c.advice)] if c.advice else [])),
        tuple(MovementLine(m.index, visible(m.name), number(m.baseline), number(m.current)) for m in c.movements),
        tuple(DifferenceLine(visible(d.name), visible(d.baseline), visible(d.current)) for d in c.differences),
    )


def baseline_headline(c: BaselineComparison) -> str:
    """Is it worse, by how much, and is that allowed; what decided comes first."""
    ratio = c.ratio_here.value or 1.0
    change = "is unchanged" if ratio == 1 else f"{'rose' if ratio > 1 else 'fell'} by {percent(abs(ratio - 1))}"
    mean = f"Mean λ_max {change} against {visible(c.baseline)}; a rise of up to {allowed_rise(c)} is allowed."
    beyond = [t for t in c.typical if t.beyond]
    if not beyond or any(name.endswith(".mean") for name in c.decided_by):
        return mean
    words = change_words(beyond[0])
    return f"{words[:1].upper()}{words[1:]}. {mean}"


def checks_headline(audit: Audit) -> str | None:
    """What decided the verdict among gates and baseline, or None where neither did."""
    wanted = audit.verdict
    if wanted in ("measured", "pass"):
        return None
    gates = [g for g in audit.gates if g.verdict == wanted]
    parts = []
    if audit.comparison is not None and audit.comparison.verdict == wanted:
        parts.append(baseline_headline(audit.comparison))
    if gates:
        word = "failed" if wanted == "fail" else "could not be decided"
        parts.append(f"{count(len(gates), 'gate')} {word}: {'; '.join(visible(g.text) for g in gates)}.")
    return " ".join(parts) or None


def _sentences(c: BaselineComparison) -> list[str]:
    apart = "with other directions or another step, so that noise is not shared"
    how = "with the same directions and step, or without noise of directions" if c.paired else apart
    headline = baseline_headline(c)
    decided = {"samples": "these samples", "population": "such samples in general"}[c.scope]
    return [
        f"Mean {inline_label(c.measure)} was {number(c.mean_baseline)} and is {number(c.mean_current)} {visible(c.units)}, over "
        f"{count(c.count, 'sample')}, {how}.",
        f"Ratio {number(c.ratio_here.value)}: {_interval(c.ratio_here)} on these samples, and {_interval(c.ratio)} over such "
        f"samples in general (95 % intervals). The verdict is about {decided}.",
        f"{of_share(c.worse).line} of the samples got worse, {of_share(c.better).line} better.",
        *(f"{w[:1].upper()}{w[1:]}." for w in map(change_words, c.typical) if not headline.startswith(w[1:], 1)),
    ]


def _interval(a: Aggregate) -> str:
    return interval(a.low, a.high) or UNBOUNDED
