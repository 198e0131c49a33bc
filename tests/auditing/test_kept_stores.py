"""Which stores of a cache go, and which stay: by age and kind, and never one that a process uses."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial

import numpy as np
import pytest

from onnxfim.auditing import kept_stores
from onnxfim.auditing.cache import Cache, Memory, cache_limit
from onnxfim.auditing.kept_stores import LIMIT, kept_below, make_room, prune, why_no_room
from onnxfim.auditing.store import FileStore
from onnxfim.errors import SettingsError
from tests.support.places import ROOT

BIG = 10**9


def fill(cache, model, *, used=None, outputs=False, size=1000):
    """A store of so many bytes, used last at that time."""
    memory = Memory(Cache(cache, BIG))
    store = memory.store({"model": model}, outputs=outputs)
    store.put_contents([("a", bytes(size))])
    memory.close()
    if used is not None:
        os.utime(store.folder, (used, used))
    return store.folder


def close(cache, limit, *used):
    """The end of a run that used these models' stores."""
    memory = Memory(Cache(cache, limit))
    for model in used:
        memory.store({"model": model})
    memory.close()


def test_those_used_longest_ago_go_first(tmp_path):
    folders = [fill(tmp_path, n, used=n) for n in range(5)]
    close(tmp_path, 4000)
    assert [f.exists() for f in folders] == [False, False, True, True, True]


def test_outputs_go_before_all_else(tmp_path):
    folders = [fill(tmp_path, n, used=n, outputs=n % 2 == 1) for n in range(4)]
    close(tmp_path, 2600)
    assert [f.exists() for f in folders] == [True, False, True, False]


def test_a_run_keeps_its_own_and_leaves_the_others_half(tmp_path):
    own = fill(tmp_path, "own", used=0, size=9000)
    others = [fill(tmp_path, n, used=1 + n) for n in range(4)]
    close(tmp_path, 5000, "own")
    assert own.exists()
    assert [f.exists() for f in others] == [False, False, True, True]  # 1.2 kB each with the index


def test_outputs_of_a_whole_run_are_the_last_to_stay(tmp_path):
    for whole, stays in ((False, True), (True, False)):
        memory = Memory(Cache(tmp_path, 1000))
        store = memory.store({"model": 1}, outputs=True)
        store.put("a", np.zeros((500, 1, 1)))
        memory.close(whole=whole)
        assert store.folder.exists() == stays


def test_opening_spares_other_stores_of_the_model(tmp_path):
    """They may be those of the very run that goes on."""
    same, other = fill(tmp_path, "a", used=0), fill(tmp_path, "b", used=1)
    memory = Memory(Cache(tmp_path, 100))
    memory.store({"model": "a", "another": "seed"})
    assert (same.exists(), other.exists()) == (True, False)
    memory.close()
    assert not same.exists()


HOLDER = """
import sys
from pathlib import Path
from onnxfim.auditing.cache import Cache, Memory
how, folder = sys.argv[1:]
memory = Memory(Cache(Path(folder), 10**9))
store = memory.store({"model": "held"})
if how == "writes":
    store.put_contents([("b", b"2")])
else:
    assert store.content("a", bytes) is not None
print("holds", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("how", ["writes", "reads"])
def test_what_another_process_uses_stays_until_it_ends(tmp_path, how):
    folder = fill(tmp_path, "held", used=0)
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, how, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    try:
        assert holder.stdout.readline() == "holds\n"
        os.utime(folder, (0, 0))
        close(tmp_path, 0)
        assert folder.exists()
        assert FileStore(folder).holds("a")
    finally:
        holder.kill()  # by nothing that it could heed
        holder.wait()
        holder.stdin.close()
        holder.stdout.close()
    os.utime(folder, (0, 0))
    close(tmp_path, 0)
    assert not folder.exists()


def test_where_no_file_can_be_locked_the_time_tells(tmp_path, monkeypatch):
    def refused(*_):
        raise OSError("no locks here")

    monkeypatch.setattr(kept_stores.fcntl, "flock", refused)
    old, new = fill(tmp_path, "old", used=0), fill(tmp_path, "new")
    close(tmp_path, 0)
    assert (old.exists(), new.exists()) == (False, True)


def test_a_store_that_is_used_says_so(tmp_path):
    folder = fill(tmp_path, "a", used=0)
    FileStore(folder)
    assert folder.stat().st_mtime > 10**9


# The disk.


def disk(monkeypatch, folder, total):
    """A disk that holds nothing but the folder."""

    def usage(_):
        held = sum(kept.bytes for kept in kept_below(folder))
        return total, held, total - held

    monkeypatch.setattr(kept_stores.shutil, "disk_usage", usage)


@pytest.mark.parametrize(
    ("total", "free", "least"),
    [(10**12, 5 * 10**10, 5 * 10**10), (10**10, 2**30, 2**30), (2**30, 2**28, 2**28)],
    ids=["5 % of a large one", "1 GiB", "a quarter of a small one"],
)
def test_some_of_the_disk_stays_free(tmp_path, monkeypatch, total, free, least):
    monkeypatch.setattr(kept_stores.shutil, "disk_usage", lambda _: (total, total - free, free))
    assert why_no_room(tmp_path / "not" / "there", 0) is None
    assert why_no_room(tmp_path, 1) == f"its disk has {free:,} bytes left, of which {least:,} stay free"


def test_a_disk_that_does_not_tell_is_tried(tmp_path, monkeypatch):
    def refused(_):
        raise OSError("untold")

    monkeypatch.setattr(kept_stores.shutil, "disk_usage", refused)
    assert why_no_room(tmp_path, 2**60) is None


def test_outputs_of_others_make_room(tmp_path, monkeypatch):
    outputs = [fill(tmp_path, n, used=n, outputs=True) for n in range(3)]
    results = fill(tmp_path, "results", used=0)
    own = fill(tmp_path, "own", outputs=True)
    disk(monkeypatch, tmp_path, 8000)  # 6 kB and a little are taken, 2 kB stay free
    make_room(tmp_path, {own.name}, 2000)
    assert [f.exists() for f in (*outputs, results, own)] == [False, False, True, True, True]


def test_a_run_that_has_no_room_says_so_and_keeps_what_it_has(tmp_path, monkeypatch):
    monkeypatch.setattr(kept_stores, "MOST_SHARE", 0.5)
    memory = Memory(Cache(tmp_path, BIG))
    disk(monkeypatch, tmp_path, 10_000)
    store = memory.store({"model": 1})
    for k in range(10):
        store.put_contents([(str(k), bytes(1000))])
    assert memory.trouble.startswith("its disk has ")
    assert memory.trouble.endswith("of which 5,000 stay free")
    assert store.holds("2")
    assert not store.holds("9")


# The limit.


@pytest.mark.parametrize(("text", "bytes_"), [("", LIMIT), (" 12 ", 12), ("0", 0), (None, LIMIT)])
def test_the_limit_is_the_environment_s(monkeypatch, text, bytes_):
    monkeypatch.delenv("ONNXFIM_CACHE_LIMIT", raising=False)
    if text is not None:
        monkeypatch.setenv("ONNXFIM_CACHE_LIMIT", text)
    assert cache_limit() == bytes_


@pytest.mark.parametrize("text", ["1GB", "-1", "1.5", "٣"])
def test_another_limit_is_refused(monkeypatch, tmp_path, text):
    monkeypatch.setenv("ONNXFIM_CACHE_LIMIT", text)
    with pytest.raises(SettingsError, match=f"ONNXFIM_CACHE_LIMIT: '{text}', expected a whole number of bytes"):
        Cache(tmp_path)


def test_removing_is_about_ours_alone(tmp_path):
    folder = fill(tmp_path, "a", used=0)
    (folder / "thesis.txt").write_text("mine")
    prune(tmp_path, 0, ())
    assert [p.name for p in folder.iterdir()] == ["thesis.txt"]


# Writing.


def test_blocks_wait_for_one_write(tmp_path, monkeypatch):
    monkeypatch.setattr("onnxfim.auditing.store.OFTEN", 1e9)
    writes = []
    store = FileStore(tmp_path, room=lambda size: writes.append(size))
    put = partial(store.put_later, content=bytes(10))
    for k in range(5):
        put(str(k))
    assert writes == [10], "the first waits for none"
    assert store.holds("3"), "who asks finds it"
    assert writes == [10, 40]
    put("5")
    store.close()
    assert writes == [10, 40, 10]
    assert FileStore(tmp_path).holds("5")


def test_a_slow_one_is_written_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr("onnxfim.auditing.store.OFTEN", -1.0)
    store = FileStore(tmp_path)
    store.put_later("a", b"1")
    assert FileStore(tmp_path).holds("a")
