"""An audit in the published JSON layout, and back."""

from __future__ import annotations

import typing
from collections.abc import Mapping
from typing import Any

from onnxfim.errors import OutputError
from onnxfim.record.audit import SCHEMA_VERSION, Audit
from onnxfim.record.plain import from_plain, to_plain
from onnxfim.record.sample import SampleResult


def audit_to_dict(audit: Audit) -> dict[str, Any]:
    """The audit as plain dicts and lists in the published layout."""
    record = to_plain(audit)
    record["schema_version"] = audit.schema_version
    record["samples"] = [_sample_to_dict(s) for s in audit.samples]
    order = ("schema_version", "verdict", "model", "data", "run")
    return {**{k: record[k] for k in order}, **record}


def _sample_to_dict(sample: SampleResult) -> dict[str, Any]:
    """A sample in the published layout: plain numbers on top, their intervals and kinds under ``intervals``."""
    record = to_plain(sample)
    record["intervals"] = {}
    for name in ("lambda_max", "lambda_max_calibrated"):
        sketch = record[name]
        record[name] = {**sketch["estimate"], **{k: v for k, v in sketch.items() if k != "estimate"}}
    for name in ("trace", "boundary_distance", "logit_sensitivity", "attack_distance"):
        if record[name] is not None:
            record["intervals"][name] = record[name]
            record[name] = record[name]["value"]
    return typing.cast("dict[str, Any]", record)


def audit_from_dict(record: Any) -> Audit:
    """The inverse of `audit_to_dict`."""
    if not isinstance(record, dict) or "schema_version" not in record:
        raise OutputError("audit JSON: no 'schema_version' field. Give a file that onnxfim wrote with -o json=…")
    version = str(record["schema_version"])
    if version.split(".", maxsplit=1)[0] != SCHEMA_VERSION.split(".", maxsplit=1)[0]:
        raise OutputError(f"audit JSON: schema_version is {version}, expected {SCHEMA_VERSION}. Use the onnxfim that wrote it.")
    try:
        samples = [_sample_from_dict(s) for s in record["samples"]]
        return typing.cast(Audit, from_plain(Audit, {**record, "samples": samples}))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise OutputError(f"audit JSON: does not fit schema {SCHEMA_VERSION} ({error!r}). Write it anew with -o json=…") from error


def _sample_from_dict(record: Mapping[str, Any]) -> dict[str, Any]:
    sample = {k: v for k, v in record.items() if k != "intervals"}
    for name in ("lambda_max", "lambda_max_calibrated"):
        flat = dict(sample[name])
        apart = {"plain": flat.pop("plain"), "cross_fit": flat.pop("cross_fit"), "replicates": flat.pop("replicates", ())}
        sample[name] = {"estimate": flat, **apart}
    return {**sample, **record["intervals"]}
