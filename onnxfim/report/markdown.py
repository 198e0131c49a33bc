"""An audit as Markdown: a step summary, and a shorter comment for a pull request; both within their hosts' limits."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from onnxfim.record.audit import Audit
from onnxfim.record.decision import Aggregate
from onnxfim.record.measures import STATISTICS
from onnxfim.record.sample import Estimate, SampleResult
from onnxfim.report.decisions import gates
from onnxfim.report.guarantee_figures import figure_words, guaranteed_figures
from onnxfim.report.guarantee_words import contradiction_words, short_lines, shown_brackets
from onnxfim.report.human import human_lines
from onnxfim.report.identity_words import changed_settings, command_text, identity_facts, identity_line
from onnxfim.report.markdown_text import code, code_block, prose
from onnxfim.report.numbers import (
    count,
    interval,
    known_ends,
    level_note,
    level_words,
    number,
    percent,
    percent_interval,
    seconds,
    what_of,
)
from onnxfim.report.served_words import hash_name
from onnxfim.report.vocabulary import VERDICT_SIGNS, VERDICT_WORDS
from onnxfim.report.whereabouts import placement_lines, where_it_ran
from onnxfim.report.words import answers, headline, lead_estimate, lead_name, most_sensitive, notices, worst_first

#: Bytes that a step summary may have, and a comment; each a little under its host's limit.
SUMMARY_BYTES = 1_000_000
COMMENT_BYTES = 63_000
#: First line of a comment, by which the next one finds and replaces it.
MARK = "<!-- onnxfim -->"

_MOST_ROWS = 100


def render_summary(audit: Audit) -> str:
    """``audit`` as a step summary, under 1 MiB: verdict, answers, gates, statistics, findings, classes, worst samples, run."""
    parts = [_head(audit), _human(audit), _answers(audit), _gates(audit), _statistics(audit), _guarantees(audit), _findings(audit)]
    parts += [_classes(audit), _worst(audit, 20), _run(audit)]
    return _signed(parts, SUMMARY_BYTES, audit)


def render_comment(audit: Audit) -> str:
    """``audit`` as a pull request's comment, under 64 KB: verdict, gates, statistics, findings."""
    parts = [f"{MARK}\n{_head(audit)}", _human(audit), _gates(audit), _statistics(audit)]
    parts += [_in_short(audit), _findings(audit), _worst(audit, 5)]
    return _signed(parts, COMMENT_BYTES, audit)


def _signed(parts: Iterable[str], most: int, audit: Audit) -> str:
    """The parts that fit, and the last line, which tells the report from others."""
    title = audit.identity.title if audit.identity is not None else None
    line = identity_line(audit.identity, audit.run.versions)
    told = ([prose(title)] if title else []) + ([code(line)] if line else [])
    last = f"\n{' · '.join(told)}\n" if told else ""
    return _fit(parts, most - len(last.encode())) + last


def _fit(parts: Iterable[str], most: int) -> str:
    """The parts that fit into ``most`` bytes, each whole or not at all."""
    note = "_More is in the HTML report; it did not fit here._"
    left = most - len(note) - 2
    kept: list[str] = []
    for part in filter(None, parts):
        size = len(part.encode()) + 2
        if size > left:
            kept.append(note)
            break
        kept.append(part)
        left -= size
    return "\n\n".join(kept) + "\n"


def _head(audit: Audit) -> str:
    lines = [f"## {VERDICT_SIGNS[audit.verdict]} onnxfim: {VERDICT_WORDS[audit.verdict].lower()} {code(audit.model.name)}"]
    lines.append(prose(headline(audit)))
    for notice in notices(audit):
        lines.append(f"> **{prose(notice.title)}.** {prose(notice.text)}")
    return "\n\n".join(lines)


def _human(audit: Audit) -> str:
    return "\n".join(f"- {prose(line)}" for line in human_lines(audit))


def _answers(audit: Audit) -> str:
    return "\n".join(f"- **{a.title}** {prose(a.text)}" for a in answers(audit))


def _gates(audit: Audit) -> str:
    rows = [(code(g.text), f"{VERDICT_SIGNS[g.verdict]} {g.verdict}", prose(g.message)) for g in gates(audit)]
    return _table("### Gates", ("Gate", "Verdict", "Why"), rows)


def _statistics(audit: Audit) -> str:
    rows = []
    if audit.calibration.accuracy is not None:
        c = audit.calibration
        rows.append(("clean accuracy", "", percent(c.accuracy), percent_interval(c.accuracy_low, c.accuracy_high) or ""))
    for measure, statistics in audit.aggregates.items():
        for statistic in STATISTICS:
            name, a = statistic.name, getattr(statistics, statistic.name)
            if a.value is not None or a.low is not None:
                value = "beyond all found" if a.value is None else number(a.value)
                rows.append((code(measure), name, value, _ends(a)))
    of: dict[str, list[str]] = {}
    for name in audit.aggregates:
        of.setdefault(what_of(name), []).append(code(name))
    note = "".join(f" {', '.join(names)}: {what}." for what, names in of.items() if what)
    end = f"\n\n{prose(audit.units)}; {count(len(audit.samples), 'sample')}, {len(audit.skipped):,} skipped.{note}"
    return _table("### Numbers", ("Measure", "Statistic", "Value", "95 % interval"), rows) + end


def _in_short(audit: Audit) -> str:
    """A line for each part that guarantees something."""
    lines = [f"- **{prose(label)}**: {prose(text)}" for label, text in short_lines(audit)]
    return "\n".join(["### Guaranteed and found\n", *lines]) if lines else ""


def _guarantees(audit: Audit) -> str:
    """What is guaranteed, and what was found beside it."""
    rows = []
    for f in guaranteed_figures(audit):
        shown, ends = figure_words(f)
        level = f" ({level_words(f.confidence)})" if ends and f.confidence != 0.95 else ""
        rows.append((code(f.name), shown, f"{ends or ''}{level}", prose(f"{f.kind}; {f.units}")))
    notes = [f"- {prose(text)}" for b in shown_brackets(audit) if (text := contradiction_words(b))]
    table = _table("### Guaranteed and found", ("Number", "Value", "95 % interval", "What it is"), rows)
    return "\n".join((table, "", *notes)) if notes else table


def _ends(a: Aggregate) -> str:
    """The interval, with its level where so few samples cannot give 95 %."""
    ends = known_ends(a.low, a.high) or ""
    return f"{ends}{level_note(a.confidence)}" if ends else ""


def _findings(audit: Audit) -> str:
    lines = [f"- **{f.level}** {code(f.id)}: {prose(f.message)}" for f in worst_first(audit.findings)[:_MOST_ROWS]]
    return "\n".join(["### Findings\n", *lines]) if lines else ""


def _classes(audit: Audit) -> str:
    rows = [
        (code(c.name), f"{c.count:,}", percent(c.accuracy), number(c.lambda_max_mean), number(c.lambda_max_calibrated_mean))
        for c in audit.classes[:_MOST_ROWS]
    ]
    return _table("### Classes", ("Class", "Samples", "Accuracy", "Mean λ_max", "Calibrated"), rows)


def _worst(audit: Audit, most: int) -> str:
    rows = [_sample(s, lead_estimate(s, audit)) for s in most_sensitive(audit)[:most]]
    return _table(
        f"### Most sensitive samples, by {prose(lead_name(audit))}", ("Sample", "λ_max", "95 % interval", "Boundary"), rows
    )


def _sample(sample: SampleResult, estimate: Estimate) -> tuple[str, ...]:
    name = f"{sample.index}" if sample.name in ("", str(sample.index)) else f"{sample.index} {code(sample.name)}"
    return name, number(estimate.value), interval(estimate.low, estimate.high) or "", number(sample.boundary_distance.value)


def _run(audit: Audit) -> str:
    run = audit.run
    facts = [
        *((prose(name), code(value)) for name, value in identity_facts(audit.identity, without=("Command",))[:_MOST_ROWS]),
        ("Model", code(audit.model.path or audit.model.name)),
        (hash_name(audit.model), code(audit.model.sha256)),
        ("Data", code(audit.data.source)),
        ("Provider", code(where_it_ran(audit))),
        *((f"Nodes on {prose(name)}" if run.placement else prose(name), prose(text)) for name, text in placement_lines(audit)),
        ("Method", prose(run.method)),
        (
            "Differences of the cross-check" if run.method == "gradient" else "Differences",
            f"{prose(run.scheme)}, step {number(run.step)}",
        ),
        ("Forward passes", f"{run.evaluations:,}"),
        ("Time", seconds(run.seconds)),
        ("Settings", ", ".join(code(f"{name}={value}") for name, value in changed_settings(audit.settings)) or "the defaults"),
        ("Versions", ", ".join(f"{prose(k)} {prose(v)}" for k, v in list(run.versions.items())[:_MOST_ROWS])),
    ]
    command = command_text(audit.identity) if audit.identity is not None else ""
    return _table("### Run", ("", ""), facts) + (f"\n\n{code_block(command)}" if command else "")


def _table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return ""
    return "\n".join([f"{title}\n", _row(head), _row(["---"] * len(head)), *(_row(r) for r in rows)])


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"
