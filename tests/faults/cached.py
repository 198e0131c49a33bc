"""A cache that cannot be used: no value may change by that, and no audit be lost."""

from __future__ import annotations

import errno
import os
import re
import threading
from dataclasses import replace
from pathlib import Path

from onnxfim.auditing import kept_stores
from onnxfim.auditing import store as stores
from onnxfim.auditing.cache import Cache, Memory
from onnxfim.record.audit import Audit
from tests.faults.table import fault

CACHE = "The cache"


def values(audit: Audit) -> Audit:
    """The audit without what depends on the clock, on the cache and on the command's own words."""
    kept = tuple(f for f in audit.findings if f.id != "cache-off")
    identity = replace(audit.identity, command=())
    return replace(audit, run=replace(audit.run, seconds=0.0, times={}), findings=kept, identity=identity)


def off(place, done, why):
    """The audit says in a finding why the cache is off, and holds what it holds without one."""
    assert done.exit_code == 0, done.output
    assert done.output.count(f"note: The cache keeps nothing more: {why}. ") == 1, done.output
    found = place.saved()
    assert [f.level for f in found.findings if f.id == "cache-off"] == ["note"]
    assert values(found) == without_cache(place)
    return done


def without_cache(place):
    """What an audit without a cache finds, which every other must find."""
    if not (place.folder / "without.json").exists():
        assert place.audit("--no-cache", "-o", "json=without.json").exit_code == 0
    return values(place.saved("without.json"))


def audit(place, folder="kept"):
    return place.audit("--cache-dir", folder, "-o", "json=a.json")


def resumes(place, folder="kept", *, damaged=0):
    """The next run finds nothing torn, and keeps again."""
    done = audit(place, folder)
    assert done.exit_code == 0, done.output
    found = place.saved()
    assert found.run.times["cache_damaged"] == damaged
    assert not [f for f in found.findings if f.id == "cache-off"]


@fault(
    CACHE,
    "its disk fills up",
    "it keeps nothing more and says so in the finding `cache-off`; the audit goes on, nothing torn is left",
    0,
)
def full(place):
    place.monkeypatch.setattr(kept_stores.shutil, "disk_usage", _untold)  # what is left shows when it is full
    disk = place.tmpfs("kept", "size=8k")
    done = off(place, audit(place), "No space left on device")
    sizes = [p.stat().st_size for p in disk.rglob("*") if p.is_file()]
    assert all(sizes), "an empty file is left"
    again = audit(place)
    assert again.exit_code == 0
    assert place.saved().run.times["cache_damaged"] == 0
    return [done, again]


@fault(
    CACHE,
    "its disk has less than 1 GiB left, or 5 % of it where that is more (of a small disk a quarter)",
    "outputs that no run uses go first; where that is not enough, the same: it leaves that much to others",
    0,
)
def nearly_full(place):
    disk = place.tmpfs("kept", "size=64k")
    (disk / "others").write_bytes(bytes(40 << 10))
    done = audit(place)
    why = place.saved().run.times["cache_trouble"]
    assert re.fullmatch(r"its disk has [\d,]+ bytes left, of which 16,384 stay free", why)
    off(place, done, why)
    assert place.saved().run.times["cache_damaged"] == 0
    free = os.statvfs(disk)
    assert free.f_bavail * free.f_frsize >= 16 << 10
    return done


@fault(
    CACHE, "its disk is full from the start, or takes no more files", "the same, from the start; no empty file or folder stays", 0
)
def full_at_once(place):
    runs = []
    for name, where in (("mkdir", "kept"), ("open", ".bin"), ("open", ".jsonl")):
        with place.opening_fails(name, where, errno.ENOSPC):
            runs.append(off(place, audit(place), "No space left on device"))
        assert not list(place.folder.glob("kept/*"))
    resumes(place)
    return runs


@fault(CACHE, "its disk fails while a block or a line is written, or at the end", "the same; what is torn is cut off", 0)
def torn(place):
    runs = []
    plain = stores.write_all
    for at in (2, 5):  # a block and a line by turns
        count = [0]

        def fails(file, content, at=at, count=count):
            count[0] += 1
            if count[0] == at:
                file.write(content[: len(content) // 2])
                raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))
            plain(file, content)

        with place.monkeypatch.context() as patch:
            patch.setattr(stores, "write_all", fails)
            runs.append(off(place, audit(place, f"kept{at}"), "Disk quota exceeded"))
        resumes(place, f"kept{at}")
    close = stores._Pair.close

    def fails_at_last(pair):
        close(pair)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with place.monkeypatch.context() as patch:
        patch.setattr(stores._Pair, "close", fails_at_last)
        runs.append(off(place, audit(place, "last"), os.strerror(errno.EIO)))
    return runs


@fault(CACHE, "it is read-only, a file, or not ours to read", "the same; what is in it is used where it can be read", 0)
def unusable(place):
    (place.folder / "file").write_text("")
    runs = [off(place, audit(place, "file"), "Not a directory"), off(place, audit(place, "file/deeper"), "Not a directory")]
    disk = place.tmpfs("kept", "size=1m")
    audit(place)
    place.mount("-o", "remount,ro", disk)
    again = audit(place)
    assert again.exit_code == 0
    assert place.saved().run.times["cached_rows"] > 500
    other = place.audit("--cache-dir", "kept", "--seed", 1, "-o", "json=a.json")
    assert "The cache keeps nothing more: Read-only file system." in other.output
    return [*runs, again, other]


@fault(CACHE, "it cannot be read (permission, EIO, a stale network disk)", "the same", 0)
def unreadable(place):
    audit(place)
    runs = []
    for name, part, code in (("listdir", "kept", errno.EACCES), ("listdir", "kept", errno.ESTALE), ("open", ".jsonl", errno.EIO)):
        with place.opening_fails(name, part, code, reading=True):
            runs.append(off(place, audit(place), os.strerror(code)))
    with place.opening_fails("open", ".bin", errno.EIO, reading=True):
        runs.append(audit(place))
        assert values(place.saved()) == without_cache(place)
    return runs


@fault(CACHE, "its files are removed, cut or spoilt, before the run or while it runs", "what is missing is measured again", 0)
def spoilt(place):
    runs = []
    for spoil in (Path.unlink, lambda p: os.truncate(p, 40), lambda p: p.write_bytes(b"\xff" * 50)):
        audit(place)
        for path in place.folder.glob("kept/*/*.bin"):
            spoil(path)
        done = audit(place)
        assert values(place.saved()) == without_cache(place)
        runs.append(done)
    plain, count = stores.write_all, [0]

    def removes(file, content):
        count[0] += 1
        if count[0] == 6:
            for path in place.folder.glob("running/*/*"):
                path.unlink()
        plain(file, content)

    with place.monkeypatch.context() as patch:
        patch.setattr(stores, "write_all", removes)
        runs.append(audit(place, "running"))
    assert count[0] > 6
    assert values(place.saved()) == without_cache(place)
    return runs


@fault(CACHE, "two runs use it at once", "both are whole, and so is what they keep", 0)
def two_at_once(place):
    runs, failures = [], []

    def one(number):
        try:
            X = stores.np.ones((50, 4, 1))
            for name in ("0" * 32, "1" * 32):
                store = stores.FileStore(place.folder / "kept" / name)
                for i in range(40):
                    store.put(f"{number}:{i}", X * i)
                    assert store.holds(f"{number}:{i}")
                store.close()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=one, args=[number]) for number in range(4)]
    for thread in threads:
        thread.start()
    runs.append(audit(place))
    for thread in threads:
        thread.join(30)
    assert not failures
    whole = stores.FileStore(place.folder / "kept" / ("0" * 32))
    assert whole.damaged == 0
    assert len(whole._blocks) == 4 * 40
    return runs


@fault(CACHE, "there is no HOME", "the finding `cache-off`; nothing is kept", 0)
def no_home(place):
    for name in ("HOME", "XDG_CACHE_HOME"):
        place.monkeypatch.delenv(name)
    place.monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # nor an entry in the list of users
    return off(place, place.audit("-o", "json=a.json"), "there is no home folder to keep it in (HOME)")


@fault(CACHE, "HOME, or XDG_CACHE_HOME, is not there and cannot be made", "the finding `cache-off`; nothing is kept", 0)
def closed_home(place):
    disk = place.tmpfs("closed", "size=64k")
    place.mount("-o", "remount,ro", disk)
    runs = []
    place.monkeypatch.setenv("XDG_CACHE_HOME", str(disk / "none"))
    runs.append(off(place, place.audit("-o", "json=a.json"), "Read-only file system"))
    place.monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    place.monkeypatch.setenv("HOME", str(disk))
    runs.append(off(place, place.audit("-o", "json=a.json"), "Read-only file system"))
    assert not (place.folder / "relative").exists()
    return runs


@fault(CACHE, "`--cache-dir` names a folder that holds other things", "they are neither counted nor touched when old entries go", 0)
def others_there(place):
    (place.folder / "project").mkdir()
    (place.folder / "project/thesis.bin").write_bytes(bytes(5000))
    (place.folder / ("ab" * 16)).mkdir()
    (place.folder / ("ab" * 16) / "thesis.bin").write_bytes(bytes(5000))
    before = place.files()
    done = place.audit("--cache-dir", ".", "-o", "json=a.json")
    assert [p.name for p in place.folder.glob("*/*.jsonl")]
    memory = Memory(Cache(place.folder, limit=1))
    memory.store({"model": "another"})
    memory.close()
    assert not [p.name for p in place.folder.glob("*/*.jsonl")], "old entries go"
    assert {name: place.files().get(name) for name in before} == before
    return done


def _untold(folder):
    raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
