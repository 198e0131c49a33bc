"""An audit in about ten labelled lines: the verdict first, then what it is about, what to do next and what it cost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

from onnxfim.record.audit import Audit
from onnxfim.record.audited_from import INPUT_UNIT, in_units_of
from onnxfim.record.decision import Aggregate, Aggregates, Level, Verdict
from onnxfim.record.ended import ended_words
from onnxfim.record.foreign_text import visible
from onnxfim.record.running import Run
from onnxfim.record.sample import SampleResult
from onnxfim.report.charts.bars import shortened
from onnxfim.report.guarantee_words import short_lines
from onnxfim.report.human import human_lines, robustness_of, who
from onnxfim.report.meaning import boundary_curve
from onnxfim.report.numbers import MISSING, count, number, percent, seconds
from onnxfim.report.page.gate_section import checks_headline
from onnxfim.report.page.quantities import UNBOUNDED
from onnxfim.report.page.tables import class_name
from onnxfim.report.vocabulary import LEVEL_WORDS
from onnxfim.report.whereabouts import where_it_ran
from onnxfim.report.words import (
    flips_alone,
    has_calibrated,
    headline,
    lead_aggregate,
    lead_measure,
    lead_values,
    most_sensitive,
    next_steps,
    predicted_wrongly,
    without_slope,
    worst_first,
)

#: How a line's first words look: ``good`` only where a gate was decided, ``plain`` as all else.
Look: TypeAlias = Literal["good", "bad", "doubtful", "neutral", "plain"]

#: Messages of findings that a card tells.
FINDINGS = 5

_LOOKS: dict[Verdict, Look] = {"pass": "good", "fail": "bad", "inconclusive": "doubtful", "measured": "neutral"}
_LEVEL_LOOKS: dict[Level, Look] = {"error": "bad", "warning": "doubtful", "note": "neutral"}
_WORST = 3  # samples that are named
_MEANINGS = 2  # sentences in human terms
_TOKENS = 5  # of a sample, that are printed
_LETTERS = 40  # of a name


@dataclass(frozen=True)
class CardLine:
    """One fact on one line: ``label``, then ``lead`` (shown as ``look`` says), then ``text``. All of it is visible text."""

    label: str
    text: str
    lead: str = ""
    look: Look = "plain"

    @property
    def whole(self) -> str:
        """The line without a label."""
        return f"{self.lead}{self.text}"


@dataclass(frozen=True)
class Card:
    """An audit as a card: what was audited, the look of its verdict, and its lines, of which that of the verdict is the first.

    ``whole`` is set where all was asked for: long messages are then not to be shortened.
    """

    title: str
    look: Look
    lines: tuple[CardLine, ...]
    whole: bool = False


def audit_card(audit: Audit, *, files: tuple[str, ...] = (), findings: int = FINDINGS) -> Card:
    """The card of an audit: plain data for a terminal, a log or a notebook.

    Args:
        audit: What is told.
        files: What was written of it.
        findings: How many of the findings' messages are told, the worst first; all are counted.
    """
    lines = [verdict_line(audit), *_measured(audit), *_worst(audit), *_findings(audit, findings), *_next(audit)]
    if files:
        lines.append(CardLine("files", ", ".join(map(visible, files))))
    title = visible(audit.model.name or audit.model.path)
    return Card(title, _LOOKS[audit.verdict], (*lines, _cost(audit), _audited(audit)), whole=findings > FINDINGS)


def verdict_line(audit: Audit) -> CardLine:
    """The verdict and its reason."""
    run = audit.run
    errors = [f.id for f in audit.findings if f.level == "error" and not (run.partial and f.id == "partial")]
    notes = errors if audit.verdict in ("inconclusive", "fail") else []
    if run.partial:
        ended = ended_words(run.interrupted_by) if run.stopped is None else "stopped by the provider"
        notes.insert(0, f"{ended}, partial: {len(audit.samples):,} of {count(audit.wanted, 'sample')}")
    told = f" ({visible(', '.join(notes))})" if notes else ""
    return CardLine("verdict", f"{told}. {_reason(audit)}", audit.verdict, _LOOKS[audit.verdict])


def _reason(audit: Audit) -> str:
    over = count(len(audit.samples), "sample")
    if not audit.measured and (flips_alone(audit) or audit.noise_alone) and not (audit.noise_alone and audit.gates):
        return headline(audit)
    if not audit.measured and not audit.noise_alone:
        return f"Nothing was measured on {count(audit.wanted or audit.data.count, 'sample')}. This is not a sign of robustness."
    if audit.verdict == "measured":
        return f"{over}, no gate set: neither pass nor fail."
    if audit.verdict == "pass":
        return f"{'Every gate' if audit.gates else 'The comparison with the baseline'} passed on {over}."
    unsound = any(f.level == "error" for f in audit.findings)
    parts = [checks_headline(audit) or "", "These numbers must not be relied on." if unsound else ""]
    return " ".join(filter(None, parts)) or "The comparison that was asked for could not be made."


def _measured(audit: Audit) -> Iterator[CardLine]:
    """Accuracy, what the numbers mean, and the three measures."""
    if audit.reads_labels:
        yield CardLine("accuracy", _accuracy(audit))
    for text in human_lines(audit)[:_MEANINGS]:
        yield CardLine("meaning", visible(text))
    yield CardLine("lambda_max", _lambda_max(audit))
    if audit.decides:
        yield CardLine("flip radius", _flip_radius(audit))
        yield CardLine("boundary", _boundary(audit))
    for label, text in short_lines(audit):
        yield CardLine(label, visible(text))


def _accuracy(audit: Audit) -> str:
    c = audit.calibration
    if c.accuracy is None:
        return f"{MISSING}: {visible(c.reason) if c.reason and audit.data.labels else 'it needs labels'}"
    told = f"{percent(c.accuracy)}{_ends(c.accuracy_low, c.accuracy_high, percent)} clean"
    return told + ("" if c.temperature is None else f"; temperature {number(c.temperature)}")


def _lambda_max(audit: Audit) -> str:
    """The mean; or, where few samples carry it so that it has no interval, the geometric mean."""
    found = lead_aggregate(audit)
    if found is None or found.mean.value is None:
        reason = next((s.lambda_max.reason for s in audit.samples if s.lambda_max.value is None and s.lambda_max.reason), None)
        return f"{MISSING}{f': {visible(reason)}' if reason else ''}"
    which = {"lambda_max": "raw", "lambda_max_calibrated": "calibrated"}.get(lead_measure(audit).name, "")
    units = visible(found.units if not which else audit.units)
    behind = f"{units}, {', '.join(filter(None, (which, found.kind)))}"
    mean, typical = found.mean, found.geometric_mean
    if found.count == 1:
        return f"{number(mean.value)} {behind}; of the one sample"
    if (mean.low is None or mean.high is None) and typical.value is not None:
        return f"geometric mean {_statistic(typical)} {behind}; {_carried(mean)}"
    told = f"mean {_statistic(mean)} {behind}"
    raw = audit.aggregates["lambda_max"].mean if which == "calibrated" and "lambda_max" in audit.aggregates else None
    return told + (f"; raw {_statistic(raw)}" if raw is not None and raw.value is not None and has_calibrated(audit) else "")


def _carried(mean: Aggregate) -> str:
    """Why the mean is not told: it has no whole interval."""
    why = visible(mean.method.partition(":")[0])
    by = why.removeprefix("carried by ")
    if by != why:
        return f"{by} {'carries' if by.startswith('1 of ') else 'carry'} the mean"
    return "the mean has no interval" + (f" ({why})" if why else "")


def _flip_radius(audit: Audit) -> str:
    """The distance at which half of the standing samples have flipped; the sentence in human terms has its tails."""
    told = robustness_of(audit)
    curve = told.curve("flip_radius")
    if curve is None or not curve.standing:
        return MISSING
    half = curve.reached[1]
    left = f", {curve.unreached:,} did not flip" if curve.unreached else ""
    if half.epsilon is None:
        return f"median not found: of {who(curve, told.counts)}{left}"
    ends = f" (at most {number(half.high)})" if half.high is not None and curve.standing > 1 else ""  # as the sentence has it
    return f"median {number(half.epsilon)}{ends} {visible(curve.units)}, L2, upper bound{left}"


def _boundary(audit: Audit) -> str:
    """The median over all samples; and, where the flip radius is told in other units, in these, of its samples."""
    found: Aggregates | None = audit.aggregates.get("boundary_distance")
    if found is None or found.median.value is None:
        reason = next((s.boundary_distance.reason for s in audit.samples if s.boundary_distance.reason), None)
        return f"{MISSING}{f': {visible(reason)}' if reason else ''}"
    curve = boundary_curve(audit)
    if curve is not None and found.count > 1:
        half = curve.reached[1]
        told = f"median {number(half.epsilon)}{_ends(half.low, half.high)} {visible(curve.units)}, L2, first order, {curve.kind}"
        return f"{told}; {who(curve, robustness_of(audit).counts)}"
    behind = f"{_length(audit)}, first order, {found.kind}"
    if found.count == 1:
        return f"{number(found.median.value)} {behind}"
    return f"median {_statistic(found.median)} {behind}"


def _worst(audit: Audit) -> Iterator[CardLine]:
    """The most sensitive samples by name, label and value; and where in its sequence the first of them is moved."""
    values = lead_values(audit)
    ordered = most_sensitive(audit)[:_WORST]
    if len(audit.samples) > 1 and ordered:
        yield CardLine("worst", "; ".join(f"{_named(s, audit)}\u00a0{number(values[s.index])}" for s in ordered))
    moved = next((d for d in audit.directions if d.role == "worst" and d.positions), None)
    if moved is not None:
        ranked = sorted(range(len(moved.positions)), key=lambda k: -moved.positions[k].share)[:_TOKENS]
        told = ", ".join(f"{moved.positions[k].token} at {k} ({percent(moved.positions[k].share)})" for k in ranked)
        yield CardLine("tokens", visible(f"worst direction of sample {moved.index}: {told}"))


def _named(sample: SampleResult, audit: Audit) -> str:
    """``sample 7 'cat.png' (4, predicted 9)``."""
    own = f" {shortened(visible(sample.name), _LETTERS)!r}" if sample.name and sample.name != str(sample.index) else ""
    label, prediction = (class_name(i, audit) for i in (sample.label, sample.prediction))
    label, prediction = (n if n is None else shortened(n, _LETTERS) for n in (label, prediction))
    about = label if label is not None else prediction and f"predicted\u00a0{prediction}"
    if predicted_wrongly(sample):
        about = f"{label},\u00a0predicted\u00a0{prediction}"
    return f"sample\u00a0{sample.index}{own}" + (f" ({about})" if about else "")


def _findings(audit: Audit, most: int) -> Iterator[CardLine]:
    """How many there are of each level, and the messages of the worst."""
    ordered = worst_first(audit.findings)
    told = [count(n, level) for level in LEVEL_WORDS if (n := sum(f.level == level for f in ordered))]
    shown = ordered[:most]
    left = len(ordered) - len(shown)
    more = "" if left <= 0 else f"; {left:,} more in the report"
    yield CardLine("findings", more, ", ".join(told) or "none", _LEVEL_LOOKS[ordered[0].level] if ordered else "neutral")
    for finding in shown:
        yield CardLine(finding.level, visible(finding.message), look=_LEVEL_LOOKS[finding.level])


def _next(audit: Audit) -> Iterator[CardLine]:
    """The one thing to do next."""
    if any(f.level == "error" and f.id != "partial" for f in audit.findings):
        yield CardLine("next", without_slope(audit) or "Mend what is in error above, and audit again.")
        return
    for text in next_steps(audit)[:1]:
        yield CardLine("next", visible(text))


def _cost(audit: Audit) -> CardLine:
    run = audit.run
    cached = run.times.get("cached_rows")
    kept = f" ({cached:,} from the cache)" if cached else ""
    passes = count(run.evaluations, "forward pass", "forward passes") + asked_words(run)
    return CardLine("cost", visible(f"{passes}{kept}, {seconds(run.seconds)}, {run.method} on {where_it_ran(audit)}"))


def asked_words(run: Run) -> str:
    """How a served model was asked, after the passes: ' in 59 requests (3 made again)'; nothing of a file."""
    requests, again, lost = (run.times.get(f"requests{kind}") for kind in ("", "_repeated", "_given_up"))
    if not isinstance(requests, int):
        return ""
    told = [f"{again:,} made again" if again else "", f"{lost:,} without an answer" if lost else ""]
    more = ", ".join(filter(None, told))
    return f" in {count(requests, 'request')}{f' ({more})' if more else ''}"


def _audited(audit: Audit) -> CardLine:
    """What of which file, on which data."""
    model, data = audit.model, audit.data
    parts = [f"{model.name or model.path}: {model.output_kind}"]
    if len(model.outputs) > 1:
        parts.append(f"output {model.output!r} of {len(model.outputs):,}")
    if len(model.inputs) > 1 and model.at is None:
        parts.append(f"input {model.input!r} of {len(model.inputs):,}")
    if model.at is not None:
        parts.append(f"from {model.at.tensor!r}; before it: {model.at.front}")
    source = "random inputs" if data.synthetic else data.source
    return CardLine("audited", visible(f"{', '.join(parts)}; {count(len(audit.samples), 'sample')} of {source}"))


def _length(audit: Audit) -> str:
    return f"{visible(in_units_of(audit.model.at, f'{INPUT_UNIT}s'))}, L2"


def _statistic(a: Aggregate) -> str:
    level = "" if a.confidence in (0.0, 0.95) else f" ({100 * a.confidence:.0f}\u00a0% interval)"
    return f"{number(a.value)}{_ends(a.low, a.high)}{level}"


def _ends(low: float | None, high: float | None, spelled: Callable[[float], str] = number) -> str:
    """`` [0.98, 1.41]``; nothing where no end is known."""
    if low is None and high is None:
        return ""
    return f" [{', '.join(UNBOUNDED if end is None else spelled(end) for end in (low, high))}]"
