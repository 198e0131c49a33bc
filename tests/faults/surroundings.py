"""Surroundings that lack something."""

from __future__ import annotations

import os

from tests.faults.conftest import refused
from tests.faults.table import fault

AROUND = "Surroundings"


@fault(AROUND, "no folder for temporary files can be written (`TMPDIR`, `/tmp`)", "none is needed", 0)
def no_tmpdir(place):
    import tempfile

    def none():
        raise FileNotFoundError(2, "No usable temporary directory found")

    place.monkeypatch.setattr(tempfile, "gettempdir", none)
    place.monkeypatch.setattr(tempfile, "_get_default_tempdir", none)
    place.monkeypatch.setattr(tempfile, "tempdir", None)
    done = place.run("audit", "model.onnx", "--data", "data.npz", "--budget", 50, "-o", "json=a.json", "-o", "html=a.html")
    assert place.saved().samples
    return done


@fault(AROUND, "the working folder was removed; all paths begin at the root", "the audit is made", 0)
def cwd_gone(place):
    (place.folder / "gone").mkdir()
    place.monkeypatch.chdir(place.folder / "gone")
    (place.folder / "gone").rmdir()
    done = place.run(
        "audit", place.folder / "model.onnx", "--data", place.folder / "data.npz", "--budget", 50, "--provider", "cpu",
        "-o", f"json={place.folder / 'a.json'}", "-o", f"html={place.folder / 'a.html'}",
    )  # fmt: skip
    assert place.saved().samples
    return done


@fault(AROUND, "the working folder was removed, and an output goes there", "said before any work", 2)
def cwd_gone_output(place):
    (place.folder / "gone").mkdir()
    place.monkeypatch.chdir(place.folder / "gone")
    (place.folder / "gone").rmdir()
    given = ("audit", place.folder / "model.onnx", "--data", place.folder / "data.npz")
    return [
        refused(place.run(*given, *output), "the working folder is gone")
        for output in ((), ("-o", "json=a.json"), ("-o", "csv=x/a.csv"))
    ]


@fault(AROUND, "no more than 20 files may be opened (`ulimit -n`)", "enough", 0)
def few_files(place):
    import resource

    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 32
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 20, limits[1]))
    try:
        done = place.audit("-o", "json=a.json", "-o", "html=a.html")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert place.saved().samples
    return done
