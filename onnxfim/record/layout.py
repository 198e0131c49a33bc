"""An audit in the published JSON layout, and back; files of layout 1 are still read.

Layout 2.0, for every measure alike: ``samples[].MEASURE`` is ``{value, low, high, kind, …}``, ``aggregates.MEASURE.STATISTIC`` is
``{value, low, high, …}``; ``measures`` tells what each is and its units.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from onnxfim.errors import OutputError
from onnxfim.record.audit import SCHEMA_VERSION, Audit
from onnxfim.record.coherence import require_coherent
from onnxfim.record.fitting import Misfit, from_plain
from onnxfim.record.json_text import uncollected
from onnxfim.record.json_writing import as_json, json_parts
from onnxfim.record.measures import MEASURES, Sign
from onnxfim.record.sample import Estimate, SampleResult

#: Fields of an estimate that are left out where they say nothing.
OPTIONAL = ("method", "evaluations", "reason", "plain", "cross_fit", "replicates", "at_temperatures")
#: What is told of each measure; fields of `ToldMeasure`.
TOLD = ("label", "symbol", "units", "sign")
#: What an audit's file begins with.
LEADING = ("schema_version", "verdict", "model", "data", "run")
#: Fields of records that are left out where they say nothing.
UNSAID = {Estimate: frozenset(OPTIONAL), SampleResult: frozenset(m.name for m in MEASURES)}
_SHOWN = 40  # letters of a version in a message


@dataclass(frozen=True)
class ToldMeasure:
    """What a file tells of a measure, for readers that do not know it."""

    label: str
    symbol: str
    units: str
    sign: Sign


def audit_text(audit: Audit, *, indent: int | None = None) -> str:
    """The audit as JSON text in the published layout.

    Samples' estimates go without what they do not say, samples without the measures that the audit does not have.
    """
    return "".join(audit_parts(audit, indent=indent))


def audit_parts(audit: Audit, *, indent: int | None = None) -> Iterator[str]:
    """The text of `audit_text`, part by part."""
    record: dict[str, Any] = {f.name: getattr(audit, f.name) for f in dataclasses.fields(audit)}
    record["measures"] = {m.name: {name: getattr(m, name) for name in TOLD} for m in MEASURES}
    return json_parts({**{k: record[k] for k in LEADING}, **record}, indent=indent, unsaid=UNSAID)


def sample_parts(samples: Sequence[SampleResult], many: int = 256) -> Iterator[str]:
    """Samples' results as JSON lists, so many in each; `samples_of` reads one."""
    for start in range(0, len(samples), many):
        yield as_json(samples[start : start + many], unsaid=UNSAID)


def samples_of(text: str) -> tuple[SampleResult, ...]:
    """The results of a list that `sample_parts` wrote."""
    found: tuple[SampleResult, ...] = from_plain(tuple[SampleResult, ...], json.loads(text))
    return found


def audit_from_dict(record: Any, *, where: str = "audit JSON") -> Audit:
    """The audit out of what the JSON of `audit_text` holds; every value is held against its type and limits first.

    Args:
        record: What the JSON holds.
        where: What messages call it.

    Raises:
        OutputError: another schema version, or the first value that does not fit, by its path.
    """
    if not isinstance(record, dict) or "schema_version" not in record:
        raise OutputError(f"{where}: no 'schema_version' field. Give a file that onnxfim wrote with -o json=…")
    version = record["schema_version"]
    major = version.split(".", maxsplit=1)[0] if isinstance(version, str) and re.fullmatch(r"\d+\.\d+", version, re.ASCII) else ""
    if major not in ("1", SCHEMA_VERSION.split(".", maxsplit=1)[0]):
        raise OutputError(
            f"{where}: schema_version is {_shown(version)}, expected {SCHEMA_VERSION} or 1.0. Use the onnxfim that wrote it."
        )
    if "entries" in record and "aggregates" not in record:  # a comparison has samples of its own
        raise OutputError(f"{where}: is a comparison, expected one audit. Give a file that `onnxfim audit` wrote with -o json=…")
    try:
        older = major == "1"
        if older:
            record = _layout_1(record)
        elif "measures" not in record:
            raise Misfit("is missing", "an object").inside("measures")
        else:
            _told_of_measures(record["measures"])
            no_nulls(record.get("samples"))
        with uncollected():
            audit: Audit = from_plain(Audit, record, older=older)
            require_coherent(audit)
    except Misfit as misfit:
        raise OutputError(f"{where}: {str(misfit).rstrip('.')}. Write it again with -o json=…") from None
    return audit


def _shown(version: object) -> str:
    text = str(version) if isinstance(version, (str, float)) else type(version).__name__
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _told_of_measures(record: Any) -> None:
    """Hold what the file tells of its measures against what it may tell; today's names are used whatever it says."""
    try:
        from_plain(Mapping[str, ToldMeasure], record)
    except Misfit as misfit:
        raise misfit.inside("measures") from None


def no_nulls(samples: Any) -> None:
    """Refuse an optional measure that is null: one that a sample has not is left out."""
    for at, sample in enumerate(samples if isinstance(samples, list) else ()):
        for name in UNSAID[SampleResult]:
            if isinstance(sample, dict) and sample.get(name, name) is None:
                raise Misfit("is null", "an object, or to be left out").inside(name).inside(at).inside("samples")


def _layout_1(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record of layout 1 in that of today. It said ``pass`` too where nothing was to be passed."""
    today = {**record, "schema_version": SCHEMA_VERSION}
    if isinstance(record.get("samples"), list):
        today["samples"] = [_sample_of_layout_1(at, s) for at, s in enumerate(record["samples"])]
    if record.get("verdict") == "pass" and not record.get("gates") and record.get("comparison") is None:
        today["verdict"] = "measured"
    return today


def _sample_of_layout_1(at: int, record: Any) -> Any:
    """Layout 1 held some measures as bare numbers, with their estimates under ``intervals``."""
    if not isinstance(record, dict):
        return record
    intervals = record.get("intervals")
    if not isinstance(intervals, dict):
        raise Misfit("is no object", "the estimates of layout 1").inside("intervals").inside(at).inside("samples")
    sample = {k: v for k, v in {**record, **intervals}.items() if k != "intervals"}
    rank, bound, trace = sample.get("effective_rank"), sample.get("log10_fisher_bound"), sample.get("trace")
    about = trace if isinstance(trace, dict) else {}
    reason = (about.get("reason") or "there is no trace") if rank is None else None
    sample["effective_rank"] = {
        "value": rank, "low": None, "high": None, "kind": about.get("kind"), "method": "trace over lambda_max", "reason": reason
    }  # fmt: skip
    ends = {"value": bound, "low": None, "high": bound, "kind": "upper bound"}
    sample["log10_fisher_bound"] = None if bound is None else ends
    return sample
