"""An audit in a run of a local MLflow."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest

from onnxfim.errors import OutputError
from onnxfim.integrations.mlflow import log_audit, metrics, tags
from onnxfim.record.audit import Audit
from onnxfim.record.identity import Identity
from onnxfim.report.human import robustness_of
from tests.support.audits import VARIANTS, make_audit, with_flips
from tests.support.places import DEV

mlflow = DEV.load("mlflow")

pytestmark = pytest.mark.untraced


@pytest.fixture
def server(tmp_path, monkeypatch):
    """Runs in a folder of the test's own; MLflow 3 asks to be told that a folder will do."""
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.chdir(tmp_path)
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri((tmp_path / "runs").as_uri())
    yield mlflow.MlflowClient()
    while mlflow.active_run() is not None:
        mlflow.end_run()
    mlflow.set_tracking_uri(before)


def test_statistics_tags_and_reports(server, tmp_path):
    audit = replace(make_audit(20), identity=Identity("abc123"))
    run = server.get_run(log_audit(audit))
    assert run.info.status == "FINISHED"
    assert mlflow.active_run() is None
    mean = audit.aggregates["lambda_max"].mean
    found = run.data.metrics
    assert (found["onnxfim/lambda_max/mean"], found["onnxfim/lambda_max/mean_low"], found["onnxfim/lambda_max/mean_high"]) == (
        mean.value,
        mean.low,
        mean.high,
    )
    assert found["onnxfim/clean_accuracy"] == audit.calibration.accuracy
    assert found["onnxfim/findings/warning"] == sum(f.level == "warning" for f in audit.findings)
    tags = run.data.tags
    assert (tags["onnxfim.verdict"], tags["onnxfim.model_sha256"], tags["onnxfim.report_id"]) == (
        audit.verdict,
        audit.model.sha256,
        "abc123",
    )
    assert {f.path for f in server.list_artifacts(run.info.run_id, "onnxfim")} == {"onnxfim/report.html", "onnxfim/report.json"}
    path = server.download_artifacts(run.info.run_id, "onnxfim/report.json", str(tmp_path))
    assert Audit.load(path) == audit


def test_into_the_active_run_and_into_one_by_its_id(server):
    with mlflow.start_run() as active:
        assert log_audit(make_audit(3)) == active.info.run_id
        assert mlflow.active_run() is not None, "it is the caller's to end"
    other = server.create_run(active.info.experiment_id).info.run_id
    assert log_audit(make_audit(3), other, prefix="int8") == other
    assert "int8/lambda_max/mean" in server.get_run(other).data.metrics


def test_two_audits_in_one_run(server):
    with mlflow.start_run() as run:
        log_audit(make_audit(3), prefix="float")
        log_audit(make_audit(3, seed=1), prefix="int8")
        log_audit(make_audit(4), prefix="float")  # once more: the newer values count
    found = server.get_run(run.info.run_id).data
    assert (found.metrics["float/samples"], found.metrics["int8/samples"]) == (4, 3)
    assert {"float.verdict", "int8.verdict"} <= found.tags.keys()


@pytest.mark.parametrize("variant", sorted(VARIANTS))
def test_only_numbers_are_metrics(variant):
    found = dict(metrics(VARIANTS[variant]()))
    assert all(isinstance(v, float) and math.isfinite(v) for v in found.values())
    assert json.dumps(found, allow_nan=False)


def test_hostile_names_are_taken(server):
    run = server.get_run(log_audit(VARIANTS["hostile"]()))
    assert "onnxfim.model" in run.data.tags


@pytest.mark.parametrize(
    ("prefix", "run", "words"),
    [("a\nb", None, "no name for MLflow"), ("", None, "no name"), ("ok", "no-such-run", "MLflow did not take the audit")],
)
def test_what_mlflow_does_not_take(server, prefix, run, words, told):
    with pytest.raises(OutputError, match=told(words)):
        log_audit(make_audit(2), run, prefix)


def test_changes_that_flip_shares_of_the_samples_and_who_the_report_is():
    audit = with_flips(make_audit(40))
    curve = robustness_of(audit).curve("flip_radius")
    found = dict(metrics(audit))
    for told, share in zip(curve.reached, (10, 50, 90), strict=True):
        assert found.get(f"flip_radius/changed_{share}_percent") == told.epsilon
    assert curve.reached[1].epsilon is not None
    identity = Identity("a" * 64, "2026-01-02T03:04:05Z", title="Nightly", meta=(("owner=\u00fc", "vision"),))
    named = dict(tags(replace(audit, identity=identity)))
    assert (named["report_id"], named["title"], named["meta"]) == ("a" * 64, "Nightly", "owner=\u00fc=vision")
    assert named["distance_units"] == "model input units"


def test_the_version_is_the_one_that_measured():
    audit = make_audit(5)
    older = replace(audit, run=replace(audit.run, versions={**audit.run.versions, "onnxfim": "0.0.7"}))
    assert dict(tags(older))["version"] == "0.0.7"
