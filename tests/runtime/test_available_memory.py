"""Memory that is left is the least of what the system, control groups, limits and the environment leave."""

from __future__ import annotations

import pytest

from onnxfim.runtime import available_memory as module
from onnxfim.runtime import control_groups
from onnxfim.runtime.available_memory import available_memory, highest_memory, memory_kills, resident_memory, total_memory

GIB = 2**30


@pytest.fixture
def system(tmp_path, monkeypatch):
    """A system that tells what the test writes: 8 GiB free, and 1 GiB of this process."""
    process, groups = tmp_path / "self", tmp_path / "cgroup"
    process.mkdir()
    groups.mkdir()
    (process / "status").write_text(f"VmHWM:\t{2 * GIB // 1024} kB\nVmRSS:\t{GIB // 1024} kB\nVmSize:\t{GIB // 1024} kB\n")
    monkeypatch.setattr(control_groups, "PROCESS", process)
    monkeypatch.setattr(control_groups, "GROUPS", groups)
    monkeypatch.setattr(module, "_free", lambda: 8 * GIB)
    monkeypatch.delenv(module.LIMIT, raising=False)
    return tmp_path


def group(folder, files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_text(f"{content}\n")


def test_without_a_limit_it_is_what_the_system_has(system):
    assert available_memory() == 8 * GIB
    assert resident_memory() == GIB
    assert highest_memory() == 2 * GIB


def test_a_group_of_version_2_counts_and_so_do_those_around_it(system):
    (system / "self" / "cgroup").write_text("0::/slice/job\n")
    group(system / "cgroup" / "slice" / "job", {"memory.max": "max", "memory.current": 3 * GIB})
    stat = f"anon 1\ninactive_file {GIB}"
    group(system / "cgroup" / "slice", {"memory.max": 5 * GIB, "memory.current": 3 * GIB, "memory.stat": stat})
    assert available_memory() == 3 * GIB  # files that can be dropped are no use
    assert total_memory() <= 5 * GIB


def test_a_group_of_version_1_inside_a_container_that_shows_it_as_the_root(system):
    (system / "self" / "cgroup").write_text("4:cpu:/x\n3:memory:/docker/abc\n0::/\n")
    stat = f"inactive_file 7\ntotal_inactive_file {GIB // 2}"
    files = {"memory.limit_in_bytes": 4 * GIB, "memory.usage_in_bytes": 3 * GIB, "memory.stat": stat}
    group(system / "cgroup" / "memory", files)
    assert available_memory() == 3 * GIB // 2


def test_processes_that_the_system_ended_are_counted(system):
    (system / "self" / "cgroup").write_text("0::/job\n")
    counted = []
    for kills in (3, 5):
        group(system / "cgroup" / "job", {"memory.events": f"oom 9\noom_kill {kills}"})
        counted.append(memory_kills())
    assert counted[1] - counted[0] == 2


def test_a_group_without_a_limit_does_not_count(system):
    (system / "self" / "cgroup").write_text("3:memory:/\n")
    group(system / "cgroup" / "memory", {"memory.limit_in_bytes": 9223372036854771712, "memory.usage_in_bytes": GIB})
    assert available_memory() == 8 * GIB


def test_a_limit_of_addresses_leaves_what_is_not_taken(system, monkeypatch):
    resource = pytest.importorskip("resource")
    real = resource.getrlimit
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (3 * GIB, 3 * GIB) if kind == resource.RLIMIT_AS else real(kind))
    assert available_memory() == 2 * GIB


@pytest.mark.parametrize(("given", "left"), [(str(3 * GIB), 2 * GIB), (str(GIB // 2), 0), ("", 8 * GIB), ("much", 8 * GIB)])
def test_the_environment_limits_what_is_resident(system, monkeypatch, given, left):
    monkeypatch.setenv(module.LIMIT, given)
    assert available_memory() == left


def test_this_machine_tells_something():
    assert available_memory() is None or available_memory() >= 0
    assert (resident_memory() or 1) <= (highest_memory() or 2**62)
