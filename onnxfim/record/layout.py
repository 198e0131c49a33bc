"""An audit in the published JSON layout, and back; files of layout 1 are still read.

Layout 2.0, for every measure alike: ``samples[].MEASURE`` is ``{value, low, high, kind, …}``, ``aggregates.MEASURE.STATISTIC`` is
``{value, low, high, …}``; ``measures`` tells what each is and its units.
"""

from __future__ import annotations

import typing
from collections.abc import Mapping
from typing import Any

from onnxfim.errors import OutputError
from onnxfim.record.audit import SCHEMA_VERSION, Audit
from onnxfim.record.measures import MEASURES
from onnxfim.record.plain import from_plain, to_plain
from onnxfim.record.sample import Estimate, SampleResult

#: Fields of an estimate that are left out where they say nothing.
OPTIONAL = ("method", "evaluations", "reason", "plain", "cross_fit", "replicates", "at_temperatures")
#: What is told of each measure.
TOLD = ("label", "symbol", "units", "sign")
#: What an audit's file begins with.
LEADING = ("schema_version", "verdict", "model", "data", "run")


def audit_to_dict(audit: Audit) -> dict[str, Any]:
    """The audit as plain dicts and lists in the published layout."""
    record = to_plain(audit)
    record["samples"] = [_sample_to_dict(s) for s in audit.samples]
    record["measures"] = {m.name: {name: getattr(m, name) for name in TOLD} for m in MEASURES}
    return {**{k: record[k] for k in LEADING}, **record}


def _sample_to_dict(sample: SampleResult) -> dict[str, Any]:
    """A sample with its estimates stripped of what they do not say, and without the measures that the audit does not have."""
    record = to_plain(sample)
    for measure in MEASURES:
        estimate = record[measure.name]
        if estimate is None:
            del record[measure.name]
        else:
            record[measure.name] = {k: v for k, v in estimate.items() if k not in OPTIONAL or v or isinstance(v, float)}
    return typing.cast("dict[str, Any]", record)


def audit_from_dict(record: Any) -> Audit:
    """The inverse of `audit_to_dict`.

    Raises:
        OutputError: another schema version, or fields that do not fit.
    """
    if not isinstance(record, dict) or "schema_version" not in record:
        raise OutputError("audit JSON: no 'schema_version' field. Give a file that onnxfim wrote with -o json=…")
    version = str(record["schema_version"])
    major = version.split(".", maxsplit=1)[0]
    if major not in ("1", SCHEMA_VERSION.split(".", maxsplit=1)[0]):
        raise OutputError(
            f"audit JSON: schema_version is {version}, expected {SCHEMA_VERSION} or 1.0. Use the onnxfim that wrote it."
        )
    try:
        if major == "1":
            record = _layout_1(record)
        return typing.cast(Audit, from_plain(Audit, record))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise OutputError(f"audit JSON: does not fit schema {version} ({error!r}). Write it anew with -o json=…") from error


def _layout_1(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record of layout 1 in that of today. It said ``pass`` too where nothing was to be passed."""
    samples = [_sample_of_layout_1(s) for s in record["samples"]]
    open_ended = record["verdict"] == "pass" and not record["gates"] and record.get("comparison") is None
    verdict = "measured" if open_ended else record["verdict"]
    return {**record, "samples": samples, "verdict": verdict, "schema_version": SCHEMA_VERSION}


def _sample_of_layout_1(record: Mapping[str, Any]) -> dict[str, Any]:
    """Layout 1 held some measures as bare numbers, with their estimates under ``intervals``."""
    sample = {**record, **record["intervals"]}
    del sample["intervals"]
    rank, bound = sample["effective_rank"], sample.get("log10_fisher_bound")
    sample["effective_rank"] = to_plain(Estimate(rank, kind=sample["trace"]["kind"], method="trace over lambda_max"))
    sample["log10_fisher_bound"] = None if bound is None else to_plain(Estimate(bound, None, bound, "upper bound"))
    return sample
