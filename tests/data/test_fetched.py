from __future__ import annotations

import sys

import numpy as np
import pytest
from click.testing import CliRunner

from onnxfim import Audit
from onnxfim.cli import main
from onnxfim.data import load
from onnxfim.data.fetched import fetched, is_elsewhere
from onnxfim.errors import InputError
from tests.support.places import DEV, SAMPLES

fsspec = DEV.load("fsspec")


@pytest.fixture
def store():
    """fsspec's filesystem in memory, empty again afterwards."""
    system = fsspec.filesystem("memory")
    fetched.cache_clear()
    yield system
    system.store.clear()
    fetched.cache_clear()


@pytest.mark.parametrize(
    ("path", "elsewhere"),
    [("s3://bucket/x.npz", True), ("memory://x", True), ("file:///x", True), ("http://x/y.npz", False), ("https://x/y", False),
     ("samples.npz", False), ("/a/b", False), ("C:\\x\\y.npz", False), ("loader.py:function", False), ("a b://x", False)],
)  # fmt: skip
def test_an_address_is_told_from_a_path(path, elsewhere):
    assert is_elsewhere(path) is elsewhere


def test_a_file_is_the_same_as_here(store):
    store.pipe("/data/digits.npz", (SAMPLES / "digits.npz").read_bytes())
    found, here = load(fetched("memory://data/digits.npz")), load(SAMPLES / "digits.npz")
    assert found.sha256 == here.sha256
    np.testing.assert_array_equal(found.inputs, here.inputs)
    assert fetched("memory://data/digits.npz") == fetched("memory://data/digits.npz")  # once


def test_a_folder_comes_with_all_that_is_in_it(store):
    store.pipe("/set/a/1.txt", b"1")
    store.pipe("/set/b/c/2.txt", b"2")
    where = fetched("memory://set")
    assert sorted(str(p.relative_to(where)) for p in where.rglob("*.txt")) == ["a/1.txt", "b/c/2.txt"]


def test_a_name_that_leads_out_of_the_folder_is_refused(store, monkeypatch):
    store.pipe("/set/a.txt", b"1")
    monkeypatch.setattr(type(store), "find", lambda self, root, **_: [f"{root}/../../evil.txt"])
    with pytest.raises(InputError, match=r"holds a file called '\.\./\.\./evil\.txt', which leads out of the folder"):
        fetched("memory://set")


def test_nothing_there_ends_in_one_line(store):
    with pytest.raises(InputError, match=r"^memory://…none\.npz: nothing is there"):
        fetched("memory://none.npz")


def test_a_scheme_that_nobody_knows_ends_in_one_line_without_what_may_be_a_key(store):
    with pytest.raises(InputError, match="cannot be read") as caught:
        fetched("nosuch://key:secret@host/x.npz")
    assert "secret" not in str(caught.value)


def test_without_fsspec_it_is_named(monkeypatch):
    fetched.cache_clear()
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(InputError, match=r"^s3://…x\.npz: needs fsspec and its filesystem\. pip install fsspec"):
        fetched("s3://bucket/x.npz")


def test_the_command_takes_an_address(store, tmp_path):
    store.pipe("/data/digits.npz", (SAMPLES / "digits.npz").read_bytes())
    done = CliRunner().invoke(
        main,
        ["audit", str(SAMPLES / "digits_mlp.onnx"), "--data", "memory://data/digits.npz", "--samples", "20", "--no-cache",
         "-o", f"json={tmp_path / 'a.json'}"],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    audit = Audit.load(tmp_path / "a.json")
    assert audit.data.source == "memory://…digits.npz"
    assert len(audit.samples) == 20
