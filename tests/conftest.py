from __future__ import annotations

import builtins
import os
import re
from pathlib import Path

# Before NumPy comes: many small eigenvalue problems gain nothing from threads, and lose twentyfold where cores are shared.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# A command in this process is tested in this process; tests of isolation ask for it.
os.environ.setdefault("ONNXFIM_ISOLATE", "off")

# One date for all reports, so that audits of one test are equal where they must be; tests of the date set their own.
os.environ.setdefault("SOURCE_DATE_EPOCH", "1700000000")

import numpy as np
import pytest

from onnxfim.record.settings import Settings
from tests.support import models
from tests.support.places import lacking
from tests.support.scheduling import FilesTogether, long_first
from tests.support.tracing import as_needed


def pytest_terminal_summary(terminalreporter):
    """One line at the end of a run: how many tests were skipped for want of what, and how to get it."""
    skipped = terminalreporter.stats.get("skipped", [])
    line = lacking([report.longrepr[2] for report in skipped if isinstance(report.longrepr, tuple)])
    if line:
        terminalreporter.write_line(line)


def pytest_collection_modifyitems(config, items):
    if hasattr(config, "workerinput"):
        long_first(items)


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """What audits keep goes to a folder of the run's own; pip keeps the one that it has."""
    before = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PIP_CACHE_DIR", os.environ.get("PIP_CACHE_DIR") or str(Path(before) / "pip"))
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_protocol(item):
    with as_needed(item):
        yield


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    return FilesTogether(config, log) if config.getvalue("dist") == "loadfile" else None


@pytest.fixture
def saved(tmp_path):
    """Write a model and return its path."""

    def save(made, name="model.onnx"):
        return models.save(made, tmp_path / name)

    return save


@pytest.fixture
def npz(tmp_path):
    """Write samples and labels and return their path."""

    def save(inputs, labels=None, name="data.npz"):
        arrays = {"inputs": inputs} if labels is None else {"inputs": inputs, "labels": labels}
        np.savez(tmp_path / name, **arrays)
        return tmp_path / name

    return save


@pytest.fixture
def cpu():
    """Settings on the CPU, without the default's look for CUDA."""
    return lambda **options: Settings(providers=("cpu",), **options)


@pytest.fixture
def told():
    """Pattern of a one-line message that holds these words in this order."""
    return lambda *words: r"^[^\n]*" + r"[^\n]*".join(map(re.escape, words)) + r"[^\n]*$"


@pytest.fixture
def uninstalled(monkeypatch):
    """Call it with names of packages: importing one fails from then on, as where it is not installed."""
    real = builtins.__import__

    def lack(*packages):
        def without(name, *rest, **more):
            if name.partition(".")[0] in packages:
                raise ImportError(name)
            return real(name, *rest, **more)

        monkeypatch.setattr(builtins, "__import__", without)

    return lack
