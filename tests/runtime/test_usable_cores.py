"""ONNX Runtime gets as many threads as there are cores for this process, not for the machine."""

from __future__ import annotations

import os

import pytest

from onnxfim.runtime import control_groups, session
from onnxfim.runtime.session import open_session
from onnxfim.runtime.shared_cores import given_cores, limited_cores, usable_cores
from tests.support.models import Mlp


@pytest.fixture
def system(tmp_path, monkeypatch):
    """A machine of 64 cores, of which the process may run on all; its control groups are what the test writes."""
    (tmp_path / "self").mkdir()
    monkeypatch.setattr(control_groups, "PROCESS", tmp_path / "self")
    monkeypatch.setattr(control_groups, "GROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(64)), raising=False)

    def tell(lines, files):
        (tmp_path / "self" / "cgroup").write_text(lines)
        for name, content in files.items():
            path = tmp_path / "cgroup" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{content}\n")

    return tell


@pytest.mark.parametrize(("quota", "cores"), [("max 100000", 64), ("200000 100000", 2), ("150000 100000", 2), ("20000 100000", 1)])
def test_a_quota_of_version_2(system, quota, cores):
    system("0::/pod/container\n", {"pod/container/cpu.max": quota})
    assert usable_cores() == cores
    assert limited_cores() == (None if cores == 64 else cores)


def test_the_quota_of_a_group_around_it_holds(system):
    system("0::/pod/container\n", {"pod/cpu.max": "300000 100000", "pod/container/cpu.max": "max 100000"})
    assert usable_cores() == 3


@pytest.mark.parametrize(("quota", "cores"), [(-1, 64), (400000, 4)])
def test_a_quota_of_version_1_inside_a_container_that_shows_it_as_the_root(system, quota, cores):
    system("3:cpu,cpuacct:/docker/abc\n0::/\n", {"cpu/cpu.cfs_quota_us": quota, "cpu/cpu.cfs_period_us": 100000})
    assert usable_cores() == cores


def test_an_affinity_holds_too(system, monkeypatch):
    system("0::/\n", {"cpu.max": "800000 100000"})
    assert usable_cores() == 8
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3, 5}, raising=False)
    assert usable_cores() == limited_cores() == 2


@pytest.mark.parametrize("content", ["", "many few", "100000", "0 0", "\xff"])
def test_what_is_no_quota_limits_nothing(system, content):
    system("0::/\n", {"cpu.max": content})
    assert usable_cores() == 64


@pytest.mark.parametrize(("limited", "asked", "threads"), [(None, None, 0), (3, None, 3), (3, 2, 2), (1, None, 1)])
def test_the_threads_of_a_session(saved, monkeypatch, limited, asked, threads):
    monkeypatch.setattr(session, "limited_cores", lambda: limited)
    options = open_session(saved(Mlp.draw(3, 6).onnx()), threads=asked)[0].get_session_options()
    assert options.intra_op_num_threads == threads
    if threads == 1:
        assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"


def test_a_worker_has_the_cores_that_it_was_given_and_no_more_than_there_are():
    before = usable_cores()
    with given_cores(1):
        assert usable_cores() == 1
        with given_cores(None):
            assert usable_cores() == before
        assert usable_cores() == 1
    with given_cores(10**6):
        assert usable_cores() == before
    assert usable_cores() == before
