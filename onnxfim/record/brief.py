"""An audit in three lines, as Python shows it: what was audited, the numbers, what to read next."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxfim.record.decision import Aggregate
from onnxfim.record.measures import MEASURES

if TYPE_CHECKING:
    from onnxfim.record.audit import Audit

_WIDEST = 200  # letters of a line
_LED_BY = MEASURES[:2]  # lambda_max, raw and calibrated


def brief(audit: Audit) -> str:
    """Three printable lines of bounded length, whatever the names in the audit."""
    return "\n".join(_line(text) for text in (_what(audit), _numbers(audit), _next(audit)))


def _what(audit: Audit) -> str:
    run = audit.run
    done = f"{_count(len(audit.samples), 'sample')} of {audit.data.source}, {run.method} on {run.provider}"
    return f"<Audit of {audit.model.name}: {audit.verdict}; {done}, {run.evaluations:,} forward passes"


def _numbers(audit: Audit) -> str:
    shown = [f"{m.label} {_mean(audit.aggregates[m.name].mean)}" for m in _LED_BY if m.name in audit.aggregates]
    if audit.calibration.accuracy is not None:
        shown.append(f"clean accuracy {audit.calibration.accuracy:.1%}")
    return f"  means: {'; '.join(shown) or 'nothing was measured'} ({audit.units})"


def _next(audit: Audit) -> str:
    levels = [f.level for f in audit.findings]
    told = ", ".join(_count(n, level) for level in ("error", "warning", "note") if (n := levels.count(level)))
    found = _count(len(levels), "finding") + (f" ({told})" if told else "")
    return f"  {found}, {_count(len(audit.gates), 'gate')}; .samples, .aggregates, .findings, .save(path), render_html(audit)>"


def _count(n: int, what: str) -> str:
    return f"{n:,} {what}{'' if n == 1 else 's'}"


def _mean(mean: Aggregate) -> str:
    if mean.value is None:
        return "not measured"
    ends = "" if mean.low is None or mean.high is None else f" [{mean.low:.3g}, {mean.high:.3g}]"
    return f"{mean.value:.3g}{ends}"


def _line(text: str) -> str:
    shown = "".join(c if c.isprintable() else "\ufffd" for c in text)
    return shown if len(shown) <= _WIDEST else f"{shown[: _WIDEST - 1]}…"
