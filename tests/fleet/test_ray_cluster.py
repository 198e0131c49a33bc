"""A real Ray cluster of two nodes on this machine, on loopback; it ends with the tests."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import replace

import numpy as np
import onnx
import pytest
from click.testing import CliRunner

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # Ray's switch for listening on loopback alone
os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112 - 15 otherwise: other tests would keep its workers waiting

import onnxfim
from onnxfim import fleet
from onnxfim.cli import main
from onnxfim.errors import ModelError, SettingsError
from onnxfim.fleet.crew import with_crew
from onnxfim.fleet.ray_cluster import LOCAL, _Home, connected, ray_measured, require_ray
from onnxfim.fleet.seat import materials
from onnxfim.graph.load import load_model
from onnxfim.runtime.stopping import Stop
from tests.fleet.test_shards import timeless
from tests.support.places import DEV, SAMPLES

ray = DEV.load("ray")
MODEL, DATA = SAMPLES / "digits_resnet.onnx", SAMPLES / "digits.npz"
pytestmark = [pytest.mark.slow, pytest.mark.untraced]  # coverage in all of Ray's processes takes as long again
_NODE = {"num_cpus": 1, "object_store_memory": 100 * 2**20, "node_ip_address": "127.0.0.1"}


@pytest.fixture(scope="module")
def cluster():
    """Two nodes of one CPU each."""
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={**_NODE, "include_dashboard": False})
    made.add_node(**_NODE)
    yield made
    ray.shutdown()
    made.shutdown()


def planned(n=200, **settings):
    data = onnxfim.load_samples(str(DATA), str(MODEL), limit=n)
    chosen = onnxfim.Settings(samples=n, batch=64, **settings)
    return fleet.plan(MODEL, data, settings=chosen), data, chosen


def measured(cluster, plan, data, report=lambda _: None):
    return ray_measured(plan, load_model(MODEL), data, cluster.address, report=report, stop=Stop())


def merged(plan, data, crewed):
    return with_crew(fleet.merge(plan, crewed.shards, finish=(load_model(MODEL), data)), crewed, 1.0)


def test_a_cluster_of_two_nodes_makes_the_audit_of_one_process(cluster):
    plan, data, chosen = planned(attack="l2", attack_samples=5)
    told = []
    crewed = measured(cluster, plan, data, told.append)
    assert timeless(merged(plan, data, crewed)) == timeless(onnxfim.audit(MODEL, data, settings=chosen))
    assert crewed.whole
    assert crewed.ranges > 2
    assert [p.stage for p in told[:2]] == ["reaching the cluster", "waiting for workers"]
    assert told[-1].total == len(plan.audited)


def test_weights_in_files_of_their_own_travel_too_and_are_removed_afterwards(cluster, tmp_path, monkeypatch):
    path = tmp_path / "large.onnx"
    (tmp_path / "weights").mkdir()
    onnx.save_model(onnx.load(MODEL), path, save_as_external_data=True, location="weights/data.bin", size_threshold=1024)
    data = onnxfim.load_samples(str(DATA), str(path), limit=40)
    settings = onnxfim.Settings(samples=40, batch=64)
    plan = fleet.plan(path, data, settings=settings)
    monkeypatch.setattr(os, "urandom", lambda n: b"\x07" * n)  # the name of the run
    crewed = ray_measured(plan, load_model(path), data, cluster.address, report=lambda _: None, stop=Stop())
    audit = with_crew(fleet.merge(plan, crewed.shards, finish=(load_model(path), data)), crewed, 1.0)
    assert timeless(audit) == timeless(onnxfim.audit(path, data, settings=settings))
    assert not os.path.exists(os.path.join(tempfile.gettempdir(), "onnxfim-" + "07" * 16))


def test_a_node_that_is_killed_in_mid_run_costs_time_and_no_number(cluster):
    plan, data, chosen = planned(200, method="sketch", budget=2000)
    node = cluster.add_node(**_NODE)  # a third one, to be killed
    gone = []

    def report(progress):
        if not gone and progress.done and progress.stage == "measuring on 3 workers":
            mine = ray.get_runtime_context().get_node_id()  # a driver ends with its own node, as a process does with its machine
            gone.append(next(n for n in (node, *cluster.worker_nodes) if n.node_id != mine))
            cluster.remove_node(gone[0], allow_graceful=False)

    crewed = measured(cluster, plan, data, report)
    assert gone
    audit = merged(plan, data, crewed)
    assert timeless(audit) == timeless(onnxfim.audit(MODEL, data, settings=chosen))
    assert (crewed.workers, crewed.restarts) == (3, ())  # it speaks against no sample, and no runtime
    # Where the others came to the end before the loss was noticed, with copies of what that worker had in hand, nothing is told of it.
    assert all("was lost with its machine" in told for told in crewed.lost)
    assert audit.run.times.get("lost_machines", 0) == len(crewed.lost)


def test_a_worker_that_is_killed_is_replaced_and_told_of(cluster):
    plan, data, _ = planned(200, method="sketch", budget=2000)
    killed = []

    def report(progress):
        if not killed and progress.done > 0.2 * progress.total:
            for pid in workers_of(os.getpid()):
                killed.append(pid)
                os.kill(pid, signal.SIGKILL)
                break

    crewed = measured(cluster, plan, data, report)
    assert killed
    assert len(crewed.restarts) == 1
    assert crewed.restarts[0].ended == "ended unexpectedly"
    audit = merged(plan, data, crewed)
    assert len(audit.samples) == 200
    assert not audit.skipped


def workers_of(parent):
    """Processes of Ray's that hold a seat."""
    import psutil

    for process in psutil.process_iter(["pid", "cmdline"]):
        if any("_Placed" in word for word in process.info["cmdline"] or ()):
            yield process.info["pid"]


def test_one_who_asks_it_to_end_gets_what_was_measured(cluster, monkeypatch):
    plan, data, _ = planned(200, method="sketch", budget=600)
    monkeypatch.setattr(os, "urandom", lambda n: b"\x08" * n)  # the name of the run
    stop = Stop()

    def report(progress):
        if progress.done and not stop.asked:
            stop.ask("SIGINT")

    crewed = ray_measured(plan, load_model(MODEL), data, cluster.address, report=report, stop=stop)
    audit = with_crew(fleet.merge(plan, crewed.shards, partial=True), crewed, 1.0)
    assert (audit.run.partial, audit.run.interrupted_by) == (True, "SIGINT")
    assert 0 < len(audit.samples) < 200
    assert len(audit.samples) + len(audit.skipped) == 200
    assert not os.path.exists(os.path.join(tempfile.gettempdir(), "onnxfim-" + "08" * 16))


def test_a_worker_with_another_version_is_refused_in_one_line(cluster, monkeypatch):
    plan, data, _ = planned(20)
    monkeypatch.setattr(onnxfim, "__version__", "0.0.1")
    with pytest.raises(
        ModelError, match=r"^--ray: .*: has onnxfim .*, and 0\.0\.1 is here\. Install the same versions on every machine"
    ):
        measured(cluster, plan, data)


def test_a_plan_for_a_gpu_needs_one(cluster):
    plan, data, _ = planned(20)
    run = {**plan.draft["run"], "provider": "CUDAExecutionProvider"}
    with pytest.raises(SettingsError, match=r"^--ray: the cluster has no GPU \(the plan is for CUDAExecutionProvider\) to run on"):
        measured(cluster, replace(plan, draft={**plan.draft, "run": run}), data)


def test_samples_travel_once_to_a_machine(cluster):
    """Workers read them where the object store of their machine holds them: the arrays are views, not copies."""
    _, data, _ = planned(20)
    with connected(cluster.address) as r:
        given = r.put(materials("3" * 32, load_model(MODEL), data))

        @r.remote(num_cpus=1)
        def owns(materials):
            arrays = (*materials.files.values(), materials.samples.inputs)
            return [bool(a.flags.owndata or a.flags.writeable) for a in arrays]

        assert not any(r.get(owns.remote(given)))


def test_the_command_says_the_same_by_a_cluster(cluster, tmp_path):
    common = ["audit", str(MODEL), "--data", str(DATA), "--samples", "60", "--batch", "64", "--no-cache", "-q"]
    results = [
        CliRunner().invoke(main, [*common, "-o", f"json={tmp_path / name}", *more])
        for name, more in (("plain.json", []), ("ray.json", ["--ray", cluster.address]))
    ]
    assert [r.exit_code for r in results] == [0, 0], results[1].output
    first, second = (onnxfim.Audit.load(tmp_path / name) for name in ("plain.json", "ray.json"))
    found = [timeless(audit) for audit in (first, second)]
    for record in found:
        del record["identity"]["command"]
    assert found[0] == found[1]
    assert second.run.times["workers"] >= 1


# What needs no cluster.


def test_without_ray_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(
        SettingsError, match=r"^--ray: Ray is not installed\. pip install 'onnxfim\[ray\]', here and on every machine\.$"
    ):
        require_ray(LOCAL)


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("127.0.0.1:1", "nothing answers there"),
        ("nowhere.invalid:6379", "nothing answers there"),
        ("head", "HOST:PORT of a cluster's head was expected"),
        ("ray://head:10001", "HOST:PORT of a cluster's head was expected"),
        ("head:port", "HOST:PORT of a cluster's head was expected"),
        ("127.0.0.1:99999999", "nothing answers there"),
    ],
)
def test_an_address_where_nothing_is_ends_in_one_line(address, told):
    with pytest.raises(SettingsError, match=told) as caught:
        require_ray(address)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"--ray {address}: ")


def test_nothing_listens_beyond_this_machine(cluster):
    import psutil

    mine = psutil.Process().children(recursive=True)
    ours = {p.pid for p in mine}
    listening = [c for c in psutil.net_connections("inet") if c.status == psutil.CONN_LISTEN and c.pid in ours]
    assert listening
    assert {c.laddr.ip for c in listening} <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}


class Stub:
    """Ray as far as a home asks it for places."""

    exceptions = None

    def __init__(self, *nodes):
        self._nodes = [{"Alive": alive, "NodeID": str(i), "Resources": resources} for i, (alive, resources) in enumerate(nodes)]
        self.asked = {}

    def nodes(self):
        return self._nodes

    def put(self, value):
        return value

    def remote(self, **options):
        self.asked = options
        return lambda kind: kind


@pytest.mark.parametrize(("provider", "places", "gpus"), [("CPUExecutionProvider", 11, 0), ("CUDAExecutionProvider", 2, 1)])
def test_a_worker_has_a_gpu_where_the_plan_is_for_one_and_a_core_else(provider, places, gpus):
    plan, _, _ = planned(20)
    plan = replace(plan, draft={**plan.draft, "run": {**plan.draft["run"], "provider": provider}})
    stub = Stub((True, {"CPU": 8.0, "GPU": 2.0}), (True, {"CPU": 3.0}), (False, {"CPU": 64.0, "GPU": 8.0}), (True, {}))
    assert _Home(stub, None, plan).places() == places
    assert (stub.asked["num_gpus"], stub.asked["num_cpus"], stub.asked["max_restarts"]) == (gpus, 1, 0)


def test_ray_is_loaded_only_where_it_is_asked_for():
    code = "import sys, onnxfim.cli.audit_command, onnxfim.fleet.ray_cluster; print('ray' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]


def test_memory_limits_of_this_machine_do_not_go_with_it(tmp_path):
    np.savez(tmp_path / "data.npz", inputs=np.zeros((2, 1, 8, 8), np.float32))
    done = CliRunner().invoke(
        main, ["audit", str(MODEL), "--data", str(tmp_path / "data.npz"), "--ray", "--isolate", "on", "--max-memory", "1G"]
    )
    assert done.exit_code == 2
    assert "--max-memory: limits a process of this machine, and --ray runs on others" in done.output
