"""The audit as a CycloneDX 1.6 ML-BOM: the model with its card and what was measured, the data, the weights, the tools.

cyclonedx-python-lib has no classes for model cards, so the document is written here, and held against that library's schema.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Sequence
from typing import Any

from onnxfim import __version__
from onnxfim.auditing.summary import aggregate_of
from onnxfim.record.audit import Audit, ClassRow
from onnxfim.record.dates import is_date
from onnxfim.record.decision import Aggregate
from onnxfim.record.foreign_text import visible
from onnxfim.record.identity import FileDigest
from onnxfim.record.measures import BY_NAME, STATISTICS
from onnxfim.record.sample import SampleResult
from onnxfim.record.settings import OutputKind
from onnxfim.record.statistics import clopper_pearson, temperature_interval
from onnxfim.report.dossier.checking import checked_bom
from onnxfim.report.dossier.unshown import unshown
from onnxfim.report.guarantee_figures import guaranteed_figures
from onnxfim.report.identity_words import changed_settings, identity_properties
from onnxfim.report.vocabulary import FAMILY_WORDS, LIMITS, NORM_WORDS

SPEC_VERSION = "1.6"
#: Classes whose measures have intervals of their own, the most frequent ones; the others have their accuracy.
MOST_CLASSES = 100
_TASKS: dict[OutputKind, str] = {
    "logits": "classification", "probabilities": "classification", "sigmoid": "multi-label classification",
    "gaussian": "regression", "embedding": "embedding", "detection": "object detection",
}  # fmt: skip
_OF_CLASSES = ("lambda_max", "lambda_max_calibrated", "boundary_distance", "flip_radius")


def render_ml_bom(audit: Audit) -> str:
    """The ML-BOM of ``audit`` as JSON.

    Raises:
        NotOfItsFormat: cyclonedx-python-lib, where it is installed, refuses it.
    """
    text = json.dumps(ml_bom(audit), indent=1, allow_nan=False, ensure_ascii=True) + "\n"
    checked_bom(text)
    return text


def ml_bom(audit: Audit) -> dict[str, Any]:
    """The ML-BOM as plain values."""
    identity = audit.identity
    of = f"{identity.report_id} {identity.date}" if identity is not None else audit.model.sha256
    weights = [_weights(i, f) for i, f in enumerate(_files(audit, "weights"))]
    metadata: dict[str, Any] = {
        "tools": {"components": _tools(audit)},
        "component": _report(audit),
        "properties": _properties((f"onnxfim:report:{name}", value) for name, value in identity_properties(identity)),
    }
    if identity is not None and identity.date is not None and is_date(identity.date):
        metadata["timestamp"] = identity.date
    return {
        "$schema": f"http://cyclonedx.org/schema/bom-{SPEC_VERSION}.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": SPEC_VERSION,
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, f'onnxfim ml-bom {visible(of)}')}",
        "version": 1,
        "metadata": metadata,
        "components": [_model(audit), _data(audit), *weights],
        "dependencies": [
            {"ref": "report", "dependsOn": ["model", "data"]},
            {"ref": "model", "dependsOn": [w["bom-ref"] for w in weights]},
            {"ref": "data"},
        ],
    }


def _files(audit: Audit, *roles: str) -> tuple[FileDigest, ...]:
    return audit.identity.hashed(*roles) if audit.identity is not None else ()


def _hashes(files: Sequence[FileDigest]) -> dict[str, Any]:
    """The hash of a component that is one file; of others there is none to state."""
    return {"hashes": [{"alg": "SHA-256", "content": files[0].sha256}]} if len(files) == 1 else {}


def _properties(pairs: Any) -> list[dict[str, str]]:
    return [{"name": visible(str(name)), "value": visible(str(value))} for name, value in pairs]


def _report(audit: Audit) -> dict[str, Any]:
    """What the BOM is of: the report."""
    title = audit.identity.title if audit.identity is not None else None
    name = visible(audit.model.name or audit.model.path)
    found = {"type": "data", "bom-ref": "report", "name": visible(title or f"Robustness audit of {name}")}
    note = audit.identity.note if audit.identity is not None else None
    return {**found, "description": visible(note)} if note else found


def _tools(audit: Audit) -> list[dict[str, Any]]:
    known = dict(audit.run.versions)
    own = {"type": "application", "name": "onnxfim", "version": visible(str(known.pop("onnxfim", __version__)))}
    others = [
        {"type": "library", "name": visible(name), "version": visible(str(version))} for name, version in sorted(known.items())
    ]
    return [own, *others]


def _weights(at: int, file: FileDigest) -> dict[str, Any]:
    return {"type": "file", "bom-ref": f"weights-{at}", "name": visible(file.path), **_hashes([file])}


def _data(audit: Audit) -> dict[str, Any]:
    data, files = audit.data, _files(audit, "samples")
    facts = {
        "onnxfim:data:selection-sha256": data.sha256,
        "onnxfim:data:count": data.count,
        "onnxfim:data:audited": len(audit.samples),
        "onnxfim:data:skipped": len(audit.skipped),
        "onnxfim:data:shape": " x ".join(map(str, data.shape)),
        "onnxfim:data:labels": str(data.labels).lower(),
        "onnxfim:data:synthetic": str(data.synthetic).lower(),
        **{f"onnxfim:data:{f.role}-sha256": f.sha256 for f in _files(audit, "labels")},
    }
    return {
        "type": "data",
        "bom-ref": "data",
        "name": visible(data.source) or "samples",
        **_hashes(files),
        "data": [
            {
                "type": "dataset",
                "name": visible(data.source),
                "description": "What the model was audited on; not its training data.",
            }
        ],
        "properties": _properties(facts.items()),
    }


def _model(audit: Audit) -> dict[str, Any]:
    model = audit.model
    facts = {
        "onnxfim:model:sha256-of-file-and-weights": model.sha256,
        "onnxfim:model:bytes": model.bytes,
        "onnxfim:model:opset": model.opset,
        "onnxfim:model:producer": model.producer,
        "onnxfim:run:provider": audit.run.provider,
        "onnxfim:run:method": audit.run.method,
        "onnxfim:run:partial": str(audit.run.partial).lower(),
        "onnxfim:verdict": audit.verdict,
        **{f"onnxfim:setting:{name}": value for name, value in changed_settings(audit.settings)},
    }
    return {
        "type": "machine-learning-model",
        "bom-ref": "model",
        "name": visible(model.name or model.path) or "unnamed",
        **_hashes(_files(audit, "model")),
        "modelCard": {
            "bom-ref": "model-card",
            "modelParameters": _parameters(audit),
            "quantitativeAnalysis": {"performanceMetrics": [*_metrics(audit), *_of_classes(audit)]},
            "considerations": {"technicalLimitations": _limitations(audit)},
        },
        "properties": _properties((name, value) for name, value in facts.items() if value is not None),
    }


def _parameters(audit: Audit) -> dict[str, Any]:
    model = audit.model
    shape = ", ".join("?" if n is None else str(n) for n in model.input_shape)
    found: dict[str, Any] = {
        "task": _TASKS[model.output_kind],
        "modelArchitecture": visible(f"ONNX graph, opset {model.opset or 'not stated'}"),
        "datasets": [{"ref": "data"}],
        "inputs": [{"format": visible(f"{model.input}: {model.input_dtype} ({shape})")}],
        "outputs": [{"format": visible(f"{model.output}: {model.output_kind}, {model.num_outputs} values")}],
    }
    if audit.architecture is not None:
        found["architectureFamily"] = FAMILY_WORDS.get(audit.architecture.family, visible(audit.architecture.family))
    return found


def _limitations(audit: Audit) -> list[str]:
    told = [f"{limit.title}: {limit.text}" for limit in LIMITS]
    told += [f"Not shown: {text}" for text in unshown(audit)]
    return told + [visible(f"{f.level} {f.id}: {f.message}") for f in audit.findings]


def _metric(what: str, value: float, low: float | None, high: float | None, part: str) -> dict[str, Any]:
    """A number with its interval; an end that is not bounded is left out."""
    ends = {"lowerBound": low, "upperBound": high}
    given = {name: repr(float(end)) for name, end in ends.items() if end is not None}
    found: dict[str, Any] = {"type": visible(what), "value": repr(float(value)), "slice": visible(part)}
    return {**found, "confidenceInterval": given} if given else found


def _level(found: Aggregate) -> str:
    return "" if found.confidence == 0.95 or (found.low is None and found.high is None) else f", {found.confidence:.0%} interval"


def _metrics(audit: Audit) -> Iterator[dict[str, Any]]:
    """What was measured over all samples."""
    for measure, group in audit.aggregates.items():
        part = f"all {group.count} samples that have it" + (f"; on {group.unfound} more nothing was found" if group.unfound else "")
        for statistic in STATISTICS:
            one: Aggregate = getattr(group, statistic.name)
            if one.value is not None:
                what = f"{measure}.{statistic.name} ({group.kind}; {group.units}{_level(one)})"
                yield _metric(what, one.value, one.low, one.high, part)
    c, everything = audit.calibration, f"all {audit.data.labelled or audit.data.count} samples"
    if c.accuracy is not None:
        yield _metric("clean_accuracy (share)", c.accuracy, c.accuracy_low, c.accuracy_high, everything)
    if c.mean_confidence is not None:
        yield _metric("mean_confidence (share)", c.mean_confidence, None, None, everything)
    if c.temperature is not None:
        yield _metric("temperature (fitted)", c.temperature, *temperature_interval(c.temperature, c.log_error), everything)
    a = audit.attack
    if a is not None:
        what = f"robust_accuracy (share; upper bound, attack replay in {NORM_WORDS[a.norm]} within {a.epsilon:g} {a.units})"
        yield _metric(what, a.robust_accuracy, a.robust_accuracy_low, a.robust_accuracy_high, f"{a.samples} attacked samples")
        if a.median_distance is not None:
            what = f"attack_distance.median (upper bound; {NORM_WORDS[a.norm]}, {a.units})"
            yield _metric(what, a.median_distance, None, None, f"{a.samples} attacked samples")
    yield from _in_human_terms(audit)
    for f in guaranteed_figures(audit):
        level = "" if (f.low is None and f.high is None) or f.confidence == 0.95 else f", {f.confidence:.4g} confidence"
        yield _metric(f"{f.name} ({f.kind}; {f.units}{level})", f.value, f.low, f.high, f.part)
    if audit.bound is not None and audit.bound.log10_fisher is not None:
        unit = f"log10 of {audit.units}"
        yield _metric(
            f"log10_fisher_bound (upper bound from the weights; {unit})", audit.bound.log10_fisher, None, None, "any input"
        )


def _in_human_terms(audit: Audit) -> Iterator[dict[str, Any]]:
    """Distances at which shares of the samples have fallen, and what attacks of a size leave."""
    told = audit.robustness
    for curve in told.curves if told is not None else ():
        units = f"{NORM_WORDS[curve.norm]}, {curve.units}"
        part = f"{curve.standing} of {curve.samples} samples that stand without a change"
        for found in curve.reached:
            if found.epsilon is not None:
                what = f"{curve.source}.fallen_{100 * found.share:.0f}_percent ({curve.kind}; {units})"
                yield _metric(what, found.epsilon, found.low, found.high, part)
        for p in curve.ladder if curve.source == "attack" else ():
            what = f"accuracy_under_attack (share; upper bound, within {p.epsilon:g}; {units})"
            yield _metric(what, p.left, p.low, p.high, f"{curve.samples} attacked samples")


def _of_classes(audit: Audit) -> Iterator[dict[str, Any]]:
    """The same by class, by label or else by prediction."""
    frequent = {c.index for c in sorted(audit.classes, key=lambda c: -c.count)[:MOST_CLASSES]}
    for row in audit.classes:
        part = f"class {row.index}" + (f": {row.name}" if row.name not in ("", str(row.index)) else "")
        part += f" ({row.count} samples, by {'label' if audit.data.labels else 'prediction'})"
        if row.accuracy is not None and row.count:
            low, high = clopper_pearson(min(row.count, round(row.accuracy * row.count)), row.count)
            yield _metric("accuracy (share)", row.accuracy, low, high, part)
        if row.index in frequent:
            yield from _measured(audit, row, part)


def _measured(audit: Audit, row: ClassRow, part: str) -> Iterator[dict[str, Any]]:
    mine = [s for s in audit.samples if _class(s, audit) == row.index and s.prediction is not None]
    for measure in _OF_CLASSES:
        if measure not in audit.aggregates or not any(BY_NAME[measure].of(s) is not None for s in mine):
            continue
        group = aggregate_of(mine, measure, seed=audit.settings.seed)
        for name, one in (("mean", group.mean), ("median", group.median)):
            if one.value is not None:
                units = audit.aggregates[measure].units
                yield _metric(f"{measure}.{name} ({group.kind}; {units}{_level(one)})", one.value, one.low, one.high, part)


def _class(sample: SampleResult, audit: Audit) -> int | None:
    return sample.label if audit.data.labels else sample.prediction
