"""`audit --ray` without Ray: workers of this process measure in the cluster's place."""

from __future__ import annotations

from functools import partial

import pytest
from click.testing import CliRunner

import onnxfim
from onnxfim.cli import main, over_ray
from onnxfim.errors import SettingsError
from onnxfim.fleet.crew import Crew
from onnxfim.fleet.seat import Seat, heard, materials
from tests.fleet.test_crew import Pretended
from tests.fleet.test_shards import timeless
from tests.support.places import SAMPLES

MODEL, DATA = SAMPLES / "digits_mlp.onnx", SAMPLES / "digits.npz"
COMMON = ["audit", str(MODEL), "--data", str(DATA), "--samples", "40", "--batch", "32", "--no-cache"]


@pytest.fixture
def pretended(monkeypatch):
    """Two workers in the place of a cluster; what is set of it changes them."""
    changes: dict[str, object] = {}

    def measured(plan, model, samples, address, *, report, stop, quiet):
        seat = Seat(materials("0" * 32, model, samples), 1)
        heard(seat.open(plan.to_json()))
        backend = Pretended(seat, 2, **{k: v for k, v in changes.items() if k != "stops"})
        if "stops" in changes:
            told = report

            def report(progress):
                told(progress)
                if progress.done:
                    stop.ask(changes["stops"])

        try:
            with stop.unbroken():
                return Crew(backend, plan, plan.audited, report=report, stop=stop, quiet=quiet, clock=backend.clock).run()
        finally:
            heard(seat.leave())

    monkeypatch.setattr(over_ray, "ray_measured", measured)
    monkeypatch.setattr(over_ray, "require_ray", lambda address: None)
    return changes


def run(tmp_path, *more):
    path = tmp_path / "audit.json"
    done = CliRunner().invoke(main, [*COMMON, "-o", f"json={path}", *more])
    return done, onnxfim.Audit.load(path) if path.exists() else None


def without_command(audit):
    record = timeless(audit)
    del record["identity"]["command"]
    return record


def test_it_is_the_audit_of_one_process(pretended, tmp_path):
    done, over = run(tmp_path, "--ray")
    assert done.exit_code == 0, done.output
    _, plain = run(tmp_path)
    assert without_command(over) == without_command(plain)


def test_machines_that_are_lost_are_said_in_a_line(pretended, tmp_path):
    pretended["dies"] = lambda worker, indices: ("was lost with its machine", True) if worker == 1 else None
    done, audit = run(tmp_path, "--ray", "head:6379")
    assert done.exit_code == 0, done.output
    assert "warning: a worker was lost with its machine; what it had in hand was measured by others" in done.output
    assert audit.run.times["lost_machines"] == 1
    assert not audit.run.restarts


def test_what_was_measured_by_the_time_it_was_asked_to_end_is_written(pretended, tmp_path):
    pretended["stops"] = "SIGTERM"
    done, audit = run(tmp_path, "--ray")
    assert done.exit_code != 0
    assert (audit.run.partial, audit.run.interrupted_by) == (True, "SIGTERM")
    assert 0 < len(audit.samples) < 40
    assert not audit.run.failed_stages


def test_without_a_cluster_nothing_is_measured_before_it_is_said(monkeypatch, tmp_path):
    def refuses(address):
        raise SettingsError(f"--ray {address}: nothing answers there. Start one.")

    monkeypatch.setattr(over_ray, "require_ray", refuses)
    monkeypatch.setattr(over_ray, "PlanJob", partial(pytest.fail, "it was planned"))
    done, _ = run(tmp_path, "--ray", "head:6379")
    assert done.exit_code == 2
    assert "--ray head:6379: nothing answers there. Start one." in done.output


def test_a_precision_is_refused_in_one_line(pretended, tmp_path):
    done, _ = run(tmp_path, "--ray", "--precision", "5%", "--method", "sketch")
    assert done.exit_code == 2
    assert "precision" in done.output
    assert "Traceback" not in done.output


def test_a_shard_is_not_measured_by_a_cluster(tmp_path):
    done = CliRunner().invoke(main, ["audit", "--plan", "plan.json", "--shard", "1/2", "--ray"])
    assert done.exit_code == 2
    assert "--ray" in done.output
