"""An audit in an MLflow run: its statistics as metrics, what it is as tags, its reports as artefacts. mlflow's only home."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any

from onnxfim import __version__
from onnxfim.errors import OutputError, in_one_line
from onnxfim.record.audit import Audit
from onnxfim.record.foreign_text import visible
from onnxfim.record.measures import STATISTICS
from onnxfim.report.guarantee_figures import guaranteed_figures
from onnxfim.report.html import render_html
from onnxfim.report.human import robustness_of
from onnxfim.report.identity_words import identity_properties

_META = "meta."  # what the names of other facts begin with
_NAME = re.compile(r"[\w\-./: ]{1,120}")  # what MLflow takes in names, of its 250 letters
_MOST = 500  # letters of a tag
_BATCH = 500  # metrics of a call; MLflow takes 1,000


def log_audit(audit: Audit, run_id: str | None = None, prefix: str = "onnxfim") -> str:
    """Log an audit to an MLflow run, as ``mlflow.log_metric`` would: to the tracking server or folder that MLflow is set to.

    Each statistic is a metric, ``onnxfim/lambda_max/mean``, with the ends of its interval beside it, ``…/mean_low`` and
    ``…/mean_high``. Verdict, hashes and the report's id are tags, ``onnxfim.verdict``. ``report.html`` and ``report.json`` are
    artefacts.

    Args:
        audit: What was measured.
        run_id: The run; by default the active one, else a new one, which is ended.
        prefix: What the names of metrics, tags and artefacts begin with: give each its own where a run has several audits.

    Returns:
        The run's id.

    Raises:
        OutputError: MLflow is not installed, takes no such name, or cannot be written to.
    """
    if not _NAME.fullmatch(prefix):
        raise OutputError(
            f"log_audit: prefix {prefix!r} is no name for MLflow, expected letters, digits and _ - . / : between them. Give "
            "another."
        )
    try:
        import mlflow
        from mlflow.entities import Metric, RunTag
        from mlflow.utils.time import get_current_time_millis
    except ImportError as error:
        raise OutputError("log_audit: MLflow is not installed, expected to log to. Run: pip install 'onnxfim[mlflow]'.") from error
    try:
        client: Any = mlflow.MlflowClient()
        active = mlflow.active_run()
        run = run_id or (active.info.run_id if active is not None else None)
        own = run is None
        if run is None:
            run = mlflow.start_run(run_name=visible(f"{prefix} {audit.model.name}")[:200]).info.run_id
        ended = "FAILED"
        try:
            now = get_current_time_millis()
            found = [Metric(f"{prefix}/{name}", value, now, 0) for name, value in metrics(audit)]
            told = [RunTag(f"{prefix}.{name}", visible(value)[:_MOST]) for name, value in tags(audit)]
            client.log_batch(run, tags=told)
            for start in range(0, len(found), _BATCH):
                client.log_batch(run, metrics=found[start : start + _BATCH])
            client.log_text(run, audit.to_json(), f"{prefix}/report.json")
            client.log_text(run, render_html(audit), f"{prefix}/report.html")
            ended = "FINISHED"
        finally:
            if own:
                mlflow.end_run(ended)
    except (mlflow.MlflowException, OSError) as error:
        raise OutputError(
            f"log_audit: MLflow did not take the audit ({in_one_line(error)[:700]}). See where it logs to, and try again."
        ) from error
    return str(run)


def metrics(audit: Audit) -> Iterator[tuple[str, float]]:
    """Names and values of all metrics, without the prefix; what was not measured has none."""
    c = audit.calibration
    values: dict[str, float | None] = {
        "clean_accuracy": c.accuracy,
        "clean_accuracy_low": c.accuracy_low,
        "clean_accuracy_high": c.accuracy_high,
        "mean_confidence": c.mean_confidence,
        "temperature": c.temperature,
        "samples": len(audit.samples),
        "skipped": len(audit.skipped),
        "forward_passes": audit.run.evaluations,
        "seconds": audit.run.seconds,
    }
    for level in ("error", "warning", "note"):
        values[f"findings/{level}"] = sum(f.level == level for f in audit.findings)
    for verdict in ("pass", "fail", "inconclusive") if audit.gates else ():
        values[f"gates/{verdict}"] = sum(g.verdict == verdict for g in audit.gates)
    if audit.attack is not None:
        values["robust_accuracy"] = audit.attack.robust_accuracy
        values["robust_accuracy_low"] = audit.attack.robust_accuracy_low
        values["robust_accuracy_high"] = audit.attack.robust_accuracy_high
    for curve in robustness_of(audit).curves:
        for told in curve.reached:  # where 10, 50 and 90 % of the standing samples have fallen
            stem = f"{curve.source}/changed_{100 * told.share:.0f}_percent"
            values |= {f"{stem}{end}": v for end, v in (("", told.epsilon), ("_low", told.low), ("_high", told.high))}
    for name, group in audit.aggregates.items():
        for statistic in STATISTICS:
            a = getattr(group, statistic.name)
            values |= {f"{name}/{statistic.name}{end}": v for end, v in (("", a.value), ("_low", a.low), ("_high", a.high))}
    for f in guaranteed_figures(audit):
        stem = f.plain.replace(".", "/", 1)
        values |= {f"{stem}{end}": v for end, v in (("", f.value), ("_low", f.low), ("_high", f.high))}
    for name, value in values.items():
        if value is not None and math.isfinite(value):
            yield name, float(value)


def tags(audit: Audit) -> Iterator[tuple[str, str]]:
    """Names and values of all tags, without the prefix."""
    yield "verdict", audit.verdict
    yield "model", audit.model.name or audit.model.path
    yield "model_sha256", audit.model.sha256
    yield "data", audit.data.source
    yield "data_sha256", audit.data.sha256
    yield "method", audit.run.method
    yield "provider", audit.run.provider
    yield "units", audit.units
    yield "distance_units", robustness_of(audit).units
    yield "version", audit.run.versions.get("onnxfim", __version__)
    told = list(identity_properties(audit.identity))
    yield from ((name, value) for name, value in told if not name.startswith(_META))
    if meta := "; ".join(f"{name.removeprefix(_META)}={value}" for name, value in told if name.startswith(_META)):
        yield "meta", meta  # one tag: MLflow does not take every name


__all__ = ["log_audit", "metrics", "tags"]
