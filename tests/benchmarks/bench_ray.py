"""A Ray cluster of this machine against one process: scaling on two cores, what a range costs beside its samples, and a lost node.

Seconds depend on the machine and on what else it does; the ratios are of runs in turn. Written for docs/scale.md:

    python -m tests.benchmarks.bench_ray
"""

from __future__ import annotations

import os
import statistics
import time
from unittest.mock import patch

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # Ray's switch for listening on loopback alone
os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112 - as the one process that they are compared with; Ray gives its workers 15

import onnxfim
from onnxfim import fleet
from onnxfim.fleet.ranges import RangeQueue
from onnxfim.fleet.ray_cluster import ray_measured
from onnxfim.fleet.seat import Seat, heard, materials
from onnxfim.graph.load import load_model
from onnxfim.runtime.stopping import Stop
from tests.support.places import SAMPLES

MODEL, DATA = SAMPLES / "digits_resnet.onnx", SAMPLES / "digits.npz"
ROUNDS = 3
_NODE = {"num_cpus": 1, "object_store_memory": 100 * 2**20, "node_ip_address": "127.0.0.1"}


def main() -> None:
    from ray.cluster_utils import Cluster

    file, data = load_model(MODEL), onnxfim.load_samples(str(DATA), str(MODEL))
    settings = onnxfim.Settings(batch=64, method="sketch", budget=1500)
    plan = fleet.plan(file, data, settings=settings)
    alone = Seat(materials("6" * 32, file, data), 1)
    heard(alone.open(plan.to_json()))

    def spans(cluster, kill=None):
        """Seconds from the first answer to the last, and the share of the samples that came in them."""
        seen: list[tuple[float, int]] = []
        gone: list[float] = []

        def report(progress):
            if progress.done:
                seen.append((time.monotonic(), progress.done))
            if kill is not None and not gone and progress.done > 0.3 * progress.total:
                gone.append(time.monotonic())
                cluster.remove_node(kill, allow_graceful=False)

        found = ray_measured(plan, file, data, cluster.address, report=report, stop=Stop())
        seen.append((time.monotonic(), len(plan.audited)))
        (first, before), (last, after) = seen[0], seen[-1]
        return (last - first) / (after - before) * len(plan.audited), found

    rows: dict[str, list[float]] = {"one process": [], "one node": [], "two nodes": [], "two nodes, one killed": []}
    for _ in range(ROUNDS):
        began = time.monotonic()
        for start in range(0, len(plan.audited), 50):
            heard(alone.measure(1, plan.audited[start : start + 50]))
        rows["one process"].append(time.monotonic() - began)
        cluster = Cluster(initialize_head=True, head_node_args={**_NODE, "include_dashboard": False})
        rows["one node"].append(spans(cluster)[0])
        node = cluster.add_node(**_NODE)
        rows["two nodes"].append(spans(cluster)[0])
        rows["two nodes, one killed"].append(spans(cluster, node)[0])
        cluster.shutdown()
    base = statistics.median(rows["one process"])
    for name, seconds in rows.items():
        print(
            f"{name}: {statistics.median(seconds):.1f} s for {len(plan.audited)} samples, {base / statistics.median(seconds):.2f} times as fast"
        )

    # A range of one sample that costs next to nothing: what is left is what ranges cost.
    cluster = Cluster(initialize_head=True, head_node_args={**_NODE, "include_dashboard": False})
    cheap = fleet.plan(file, data, settings=onnxfim.Settings(batch=64))
    with patch.object(RangeQueue, "_size", lambda self: 1):
        own = time.process_time()
        found = ray_measured(cheap, file, data, cluster.address, report=lambda _: None, stop=Stop())
        own = time.process_time() - own
    n = len(cheap.audited)
    print(
        f"{n} ranges of one sample: {1e3 * own / n:.2f} ms of the driver's own time a range; the workers measured {found.busy / n * 1e3:.2f} ms each"
    )
    cluster.shutdown()
    heard(alone.leave())


if __name__ == "__main__":
    main()
