"""An audit as the metrics of a Hugging Face model card: the ``model-index`` of its head, and a section for its readers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import PurePath
from typing import Any, TypeAlias

from onnxfim import __version__
from onnxfim.data.preprocessing import order_of
from onnxfim.record.audit import Audit
from onnxfim.record.decision import Aggregate
from onnxfim.record.foreign_text import visible
from onnxfim.report.guarantee_figures import guaranteed_figures, plain_name
from onnxfim.report.human import human_lines, robustness_of, who
from onnxfim.report.markdown_text import code, prose
from onnxfim.report.numbers import known_ends, level_note, number, percent, statistic_label
from onnxfim.report.vocabulary import VERDICT_WORDS
from onnxfim.report.words import lead_measure

Plain: TypeAlias = "dict[str, Any]"


def model_index(
    audit: Audit, *, name: str | None = None, task: str | None = None, dataset: str | None = None, dataset_name: str | None = None,
    split: str | None = None,
) -> list[Plain]:  # fmt: skip
    """The ``model-index`` of a model card: each statistic with its interval and its kind.

    Args:
        audit: What was measured.
        name: Name of the model; by default its file's.
        task: Hugging Face's name of the task; by default as the inputs tell: ``image-classification``, ``tabular-classification``,
            else ``other``.
        dataset: Name of the data set on the Hub; by default the name of the file or folder.
        dataset_name: The data set in words; by default where the samples came from.
        split: The part of it that was audited.
    """
    source = visible(audit.data.source)
    about: Plain = {
        "type": visible(dataset) if dataset else _slug(source),
        "name": visible(dataset_name) if dataset_name else source,
    }
    if split is not None:
        about["split"] = split
    result = {
        "task": {"type": task or _task(audit), "name": "Robustness audit"},
        "dataset": about,
        "metrics": list(_metrics(audit)),
    }
    return [{"name": visible(name) if name else visible(audit.model.name or PurePath(audit.model.path).name), "results": [result]}]


def render_model_card(audit: Audit) -> str:
    """A model card with the audit alone: its head in YAML, and a section in Markdown."""
    head = "\n".join(_yaml({"model-index": model_index(audit)}))
    return f"---\n{head}\n---\n\n{render_section(audit)}"


def render_section(audit: Audit) -> str:
    """The section of a model card that a person reads."""
    version = prose(audit.run.versions.get("onnxfim", __version__))
    lines = [
        "## Robustness",
        "",
        f"Audited with onnxfim {version}: {VERDICT_WORDS[audit.verdict].lower()}, {len(audit.samples):,} samples of "
        f"{code(visible(audit.data.source))}.",
        *(f"{code(visible(f.id))}: {prose(f.message)}" for f in audit.findings if f.level == "error"),
        *(prose(line) for line in human_lines(audit)),
        "",
        "| Metric | Value | 95 % interval | Kind |",
        "|---|---|---|---|",
    ]
    for m in _metrics(audit):
        args = m.get("args", {})
        low, high, shown = args.get("low"), args.get("high"), _shown_as(m)
        ends = f"{shown(low)} to {shown(high)}" if low is not None and high is not None else known_ends(low, high) or ""
        ends += level_note(args["confidence"]) if ends else ""
        lines.append(f"| {prose(m['name'])} | {shown(m['value'])} | {ends} | {prose(args.get('kind', ''))} |")
    lines += ["", f"Model {code(audit.model.sha256[:12])}, data {code(audit.data.sha256[:12])} ({_hashes(audit)}).", ""]
    return "\n".join(lines)


def _shown_as(metric: Plain) -> Callable[[float], str]:
    return percent if metric["type"] == "accuracy" or metric["args"].get("units") == "share" else number


def _hashes(audit: Audit) -> str:
    """What the two hashes are."""
    if audit.model.served is None:
        return "SHA-256"
    return "SHA-256; the model's is that of its address and metadata, its weights were not seen"


def _metrics(audit: Audit) -> Iterator[Plain]:
    c = audit.calibration
    if c.accuracy is not None:
        yield _metric("accuracy", "Clean accuracy", c.accuracy, c.accuracy_low, c.accuracy_high, 0.95, {})
    lead = lead_measure(audit).name
    for measure, statistic in dict.fromkeys(
        (
            (lead, "mean"),
            (lead, "median"),
            (lead, "p95"),
            ("lambda_max", "mean"),
            ("boundary_distance", "median"),
        )
    ):
        group = audit.aggregates.get(measure)
        if group is None:
            continue
        a: Aggregate = getattr(group, statistic)
        if a.value is None:
            continue
        kinds = sorted({e.kind for s in audit.samples if (e := getattr(s, measure, None)) is not None and e.value is not None})
        told: Plain = {"statistic": statistic, "units": visible(group.units), "kind": " and ".join(kinds)}
        yield _metric(measure, statistic_label(measure, statistic), a.value, a.low, a.high, a.confidence, told)
    yield from _flips(audit)
    yield from _guarantees(audit)
    attack = audit.attack
    if attack is not None:
        also: Plain = {"attack": attack.norm, "epsilon": attack.epsilon, "units": visible(attack.units), "kind": "upper bound"}
        yield _metric(
            "accuracy",
            "Accuracy under attack",
            attack.robust_accuracy,
            attack.robust_accuracy_low,
            attack.robust_accuracy_high,
            0.95,
            also,
        )


def _flips(audit: Audit) -> Iterator[Plain]:
    """The distances at which 10, 50 and 90 % of the standing samples have flipped, as the sentences above the table tell them."""
    robust = robustness_of(audit)
    curve = robust.curve("flip_radius")
    for found in () if curve is None else curve.reached:
        if curve is None or found.epsilon is None:
            continue
        also: Plain = {
            "statistic": f"{found.share:.0%} flipped",
            "of": who(curve, robust.counts),
            "units": f"{visible(curve.units)}, L2",
            "kind": curve.kind,
        }
        name = f"Change that flips {found.share:.0%}".replace("%", " %")
        yield _metric("flip_radius", name, found.epsilon, found.low, found.high, 0.95, also)


def _guarantees(audit: Audit) -> Iterator[Plain]:
    """What is guaranteed, and found beside it."""
    for f in guaranteed_figures(audit):
        if not f.name.startswith("verifier."):
            also: Plain = {"of": visible(f.part), "units": visible(f.units), "kind": visible(f.kind)}
            kind = plain_name(f.name.partition("@")[0].replace("[", ".").replace("]", ""))
            yield _metric(kind, visible(f.label), f.value, f.low, f.high, f.confidence, also)


def _metric(
    kind: str, name: str, value: float, low: float | None, high: float | None, confidence: float, also: Mapping[str, Any]
) -> Plain:
    ends = {end: v for end, v in (("low", low), ("high", high)) if v is not None}
    return {"type": kind, "value": value, "name": name, "args": {**ends, **({"confidence": confidence} if ends else {}), **also}}


def _task(audit: Audit) -> str:
    if order_of(audit.data.shape) is not None:
        return "image-classification"
    return "tabular-classification" if len(audit.data.shape) == 1 and audit.model.at is None else "other"


def _slug(source: str) -> str:
    """A name as those of the Hub's data sets are: letters, digits, and - _ . between them."""
    last = PurePath(source.rsplit(" in ", maxsplit=1)[-1]).stem
    kept = "".join(c if c.isascii() and (c.isalnum() or c in "-_.") else "-" for c in last).strip("-_.")
    return kept or "unnamed"


def _yaml(value: Any, depth: int = 0) -> Iterator[str]:
    """A value of objects, lists, texts and numbers as lines of YAML: its scalars are JSON's, which YAML 1.2 holds."""
    pad = "  " * depth
    if isinstance(value, dict):
        for key, item in value.items():
            if isinstance(item, (dict, list)) and item:
                yield f"{pad}{key}:"
                yield from _yaml(item, depth + 1 if isinstance(item, dict) else depth)
            else:
                yield f"{pad}{key}: {_scalar(item)}"
    else:
        for item in value:
            first, *rest = _yaml(item, depth + 1)
            yield f"{pad}- {first.lstrip()}"
            yield from rest


def _scalar(value: Any) -> str:
    if isinstance(value, float):  # YAML 1.1 reads 1e-05 as a text
        text = repr(value)
        return text if "." in text else text.replace("e", ".0e")
    return json.dumps(value, ensure_ascii=False)


__all__ = ["model_index", "render_model_card", "render_section"]
