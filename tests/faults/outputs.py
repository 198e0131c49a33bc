"""Outputs that cannot be written, or not in the usual way."""

from __future__ import annotations

import errno
import itertools
import json
import os
import socket
import stat
import tempfile
import threading
import time

import numpy as np
import pytest

from onnxfim.record import writing
from onnxfim.report.csv_samples import render_csv
from tests.faults.conftest import refused
from tests.faults.table import fault
from tests.support import models

OUT = "Outputs"
DISK = "Output disks"


def needs_proc():
    """Skip where open files have no names."""
    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("no /proc here")


def csv(place):
    """The saved audit's samples as they must be written."""
    return render_csv(place.saved("saved.json")).encode()


def wait_for(end):
    """Return when somebody has written into a pipe."""
    until = time.monotonic() + 20
    while time.monotonic() < until:
        try:
            if os.read(end, 1 << 10):
                return
        except BlockingIOError:
            pass
        time.sleep(0.01)


def is_report(content):
    """Whether a page is whole."""
    text = content.decode() if isinstance(content, bytes) else content
    return text.startswith("<!DOCTYPE html>") and text.rstrip().endswith("</html>")


# Disks.


@fault(
    DISK,
    "the disk is full",
    "the old file stays, no part of the new one is left; the other formats are written, this one is named",
    2,
)
def disk_full(place):
    full = place.tmpfs("full", "size=16k")
    (full / "a.json").write_text("old")
    done = place.audit("-o", "csv=a.csv", "-o", f"json={full / 'a.json'}")
    assert "full/a.json: cannot be written (No space left on device)" in done.output
    assert done.output.count("files: a.csv\n") == 1
    assert [(p.name, p.read_text()) for p in full.iterdir()] == [("a.json", "old")]
    assert len((place.folder / "a.csv").read_text().splitlines()) == 13
    return done


@fault(DISK, "two disks are full", "each output that is not written is named", 2)
def two_full(place):
    full = place.tmpfs("full", "size=16k")
    done = place.convert(f"json={full}/a.json", f"html={full}/a.html", "csv=a.csv")
    (line,) = done.output.splitlines()
    assert line.startswith("onnxfim: 2 outputs were not written. ")
    assert f"{full}/a.json: cannot be written (No space left on device)" in line
    assert f"{full}/a.html: cannot be written (No space left on device)" in line
    assert not list(full.iterdir())
    assert (place.folder / "a.csv").exists()
    return done


@fault(DISK, "the disk fails (EIO, quota) while it is opened, written, synced or the file is moved", "as a full one", 2)
def disk_fails(place):
    runs = []
    for name, code in itertools.product(("open", "fsync", "replace"), (errno.EIO, errno.EDQUOT)):
        (place.folder / "a.json").write_text("old")
        with place.failing(name, code, where=lambda first, *_: isinstance(first, int) or str(first).endswith(".tmp")):
            done = place.convert("json=a.json", "csv=a.csv")
        assert f"a.json: cannot be written ({os.strerror(code)})" in done.output
        assert (place.folder / "a.json").read_text() == "old"
        assert (place.folder / "a.csv").read_bytes() == csv(place)
        runs.append(done)
    return runs


@fault(DISK, "files may not grow further (`ulimit -f`)", "as a full disk", 2)
def too_large(place):
    import resource

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, limits[1]))
    try:
        done = place.convert("json=a.json", "csv=a.csv")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "a.json: cannot be written (File too large)" in done.output
    assert not (place.folder / "a.json").exists()
    return done


@fault(DISK, "the disk is read-only, or the folder is closed", "said before any work", 2)
def read_only(place):
    closed = place.tmpfs("closed", "size=64k")
    (closed / "a.json").write_text("old")
    place.mount("-o", "remount,ro", closed)
    before = place.files()
    done = [refused(place.audit("-o", f"json={closed}/{name}"), "the disk is read-only") for name in ("a.json", "b.json")]
    assert place.files() == before
    return done


@fault(DISK, "the working folder is read-only and no output is named", "said before any work: report.html would go there", 2)
def read_only_here(place):
    closed = place.tmpfs("closed", "size=64k")
    place.mount("-o", "remount,ro", closed)
    place.monkeypatch.chdir(closed)
    return refused(
        place.run("audit", "../model.onnx", "--data", "../data.npz"), "report.html: cannot be written (the disk is read-only)"
    )


@fault(DISK, "a file is mounted by itself, as in a container", "written in place", 0)
def mounted_file(place):
    (place.folder / "host.json").write_text("old" * 100_000)
    (place.folder / "a.json").write_text("")
    place.mount("--bind", place.folder / "host.json", place.folder / "a.json")
    done = place.convert("json=a.json")
    assert place.saved("host.json") == place.saved("saved.json")
    return done


@fault(DISK, "a file may be changed, its folder not", "written in place; what it held is put back where that fails", 2)
def in_place(place):
    (place.folder / "a.json").write_text("old")
    with place.failing("open", errno.EACCES, where=lambda path, *_: str(path).endswith(".tmp"), times=2):
        assert place.convert("json=a.json").exit_code == 0
        assert place.saved() == place.saved("saved.json")
        (place.folder / "a.json").write_text("old")
        with place.failing("fsync", errno.ENOSPC):
            done = place.convert("json=a.json")
    assert (place.folder / "a.json").read_text() == "old"
    return done


@fault(
    DISK, "the disk of an output of `bounds`, `compare` or `init` is full", "the same: the others are written, this one is named", 2
)
def other_commands(place):
    device = place.device(7)
    told = "device: cannot be written (No space left on device)"
    bounds = place.run("bounds", "model.onnx", "-o", f"json={device}", "-o", "html=b.html")
    assert told in bounds.output
    assert "upper bound: " in bounds.output
    assert is_report((place.folder / "b.html").read_bytes())
    compare = place.run("compare", "saved.json", "saved.json", "-o", f"html={device}", "-o", "markdown=c.md", "-o", "json=c.json")
    assert told in compare.output
    assert "report: c.md, c.json\n" in compare.output
    assert json.loads((place.folder / "c.json").read_text())
    assert (place.folder / "c.md").read_text()
    init = place.run("init", "--force", device)
    assert told in init.output
    assert "written; every key" not in init.output
    return [bounds, compare, init]


# What is no file.


@fault(OUT, "a symbolic link, or a chain of them", "what it leads to is replaced; the link stays", 0)
def links(place):
    (place.folder / "real").mkdir()
    (place.folder / "real/a.json").write_text("old")
    (place.folder / "middle").symlink_to("real")
    (place.folder / "a.json").symlink_to("middle/a.json")
    done = place.convert("json=a.json")
    assert os.readlink(place.folder / "a.json") == "middle/a.json"
    assert place.saved("real/a.json") == place.saved("saved.json")
    assert [p.name for p in (place.folder / "real").iterdir()] == ["a.json"]
    return done


@fault(OUT, "a link to a file that is not there", "that file is made", 0)
def dangling(place):
    (place.folder / "real").mkdir()
    (place.folder / "a.json").symlink_to("real/b.json")
    done = place.convert("json=a.json")
    assert place.saved("real/b.json") == place.saved("saved.json")
    assert (place.folder / "a.json").is_symlink()
    return done


@fault(OUT, "a ring of links, a link into a folder that is not there", "said before any work", 2)
def ring(place):
    (place.folder / "a.json").symlink_to("b.json")
    (place.folder / "b.json").symlink_to("a.json")
    (place.folder / "c.json").symlink_to("none/c.json")
    return [
        refused(place.convert("json=a.json"), "a.json: cannot be written (Too many levels of symbolic links)"),
        refused(place.convert("json=c.json"), "c.json: the folder", "none' does not exist"),
    ]


@fault(OUT, "a named pipe, or `>(command)`", "written straight into it", 0)
def pipe(place):
    os.mkfifo(place.folder / "pipe")
    read = []
    reader = threading.Thread(target=lambda: read.append((place.folder / "pipe").read_bytes()))
    reader.start()
    done = place.convert("html=pipe", "csv=a.csv")
    reader.join(20)
    assert is_report(read[0])
    assert stat.S_ISFIFO((place.folder / "pipe").stat().st_mode)
    return done


@fault(OUT, "a pipe that nobody reads", "said after 5 seconds; the others are written", 2)
def no_reader(place):
    place.monkeypatch.setattr(writing, "READER_COMES", 0.2)
    os.mkfifo(place.folder / "pipe")
    done = place.convert("json=pipe", "csv=a.csv")
    assert "pipe: cannot be written (a pipe that nothing read within 0." in done.output
    assert (place.folder / "a.csv").exists()
    return done


@fault(OUT, "a pipe whose reader goes, or takes nothing for 30 seconds", "said; the others are written", 2)
def reader_goes(place):
    place.monkeypatch.setattr(writing, "READER_TAKES", 0.3)
    os.mkfifo(place.folder / "pipe")
    end = os.open(place.folder / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    asleep = place.convert("html=pipe", "csv=a.csv")
    assert "its reader took nothing for 0." in asleep.output
    place.monkeypatch.setattr(writing, "READER_TAKES", 20)

    while os.read(end, 1 << 16):  # what the first left
        pass
    reader = threading.Thread(target=lambda: (wait_for(end), os.close(end)))
    reader.start()
    gone = place.convert("html=pipe", "json=a.json")
    reader.join(20)
    assert "Broken pipe" in gone.output
    assert {"a.csv", "a.json"} <= set(os.listdir(place.folder))
    return [asleep, gone]


@fault(OUT, "a character device", "written straight; it stays a device", 0)
def device(place):
    null = place.device(3)
    done = place.convert(f"json={null}", "csv=a.csv")
    assert stat.S_ISCHR(null.stat().st_mode)
    return done


@fault(OUT, "a device that takes nothing", "said; the others are written", 2)
def full_device(place):
    full = place.device(7)
    done = place.convert(f"json={full}", "csv=a.csv")
    assert "device: cannot be written (No space left on device)" in done.output
    assert stat.S_ISCHR(full.stat().st_mode)
    assert (place.folder / "a.csv").exists()
    return done


@fault(OUT, "a block device (a whole disk), a socket, a folder", "said before any work; never written", 2)
def never(place):
    block = place.device(0, kind=stat.S_IFBLK, major=42)  # a number that is given to no driver
    (place.folder / "folder").mkdir()
    with socket.socket(socket.AF_UNIX) as made:
        made.bind("socket")
        return [
            refused(place.convert(f"json={block}"), "is a block device"),
            refused(place.convert("json=socket"), "socket: is a socket, expected a file"),
            *(refused(place.convert(f"json={name}"), "is a folder") for name in ("folder", "none/", ".", "..", "folder/..")),
        ]


@fault(OUT, "`/dev/stdout`, or a link to it", "as `-`: the report alone goes there, the last line to stderr", 0)
def stdout(place):
    needs_proc()
    (place.folder / "out").symlink_to("/proc/self/fd/1")
    done = place.process("convert", "saved.json", "-o", "csv=out")
    assert done.stdout.encode().rstrip() == csv(place).rstrip()
    assert (place.folder / "out").is_symlink()
    return done


@fault(OUT, "a link to an open descriptor", "written through it", 0)
def descriptor(place):
    needs_proc()
    read, write = os.pipe()
    (place.folder / "out").symlink_to(f"/proc/self/fd/{write}")
    found = []
    with os.fdopen(read, "rb") as end:
        reader = threading.Thread(target=lambda: found.append(end.read()))
        reader.start()
        done = place.convert("csv=out")
        os.close(write)
        reader.join(20)
    assert found == [csv(place)]
    with open(place.folder / "open.csv", "w") as file:
        (place.folder / "other").symlink_to(f"/proc/self/fd/{file.fileno()}")
        again = place.convert("csv=other")
        assert os.fstat(file.fileno()).st_size == len(csv(place)), "the open file, and no other of its name"
    return [done, again]


# Names and permissions.


@fault(OUT, "a file is there with permissions of its own", "they stay; a new file has those of the umask", 0)
def permissions(place):
    (place.folder / "a.json").touch(mode=0o640)
    (place.folder / "a.json").chmod(0o640)
    before = os.umask(0o077)
    try:
        done = place.convert("json=a.json", "csv=a.csv")
    finally:
        os.umask(before)
    assert {name: stat.S_IMODE((place.folder / name).stat().st_mode) for name in ("a.json", "a.csv")} == {
        "a.json": 0o640,
        "a.csv": 0o600,
    }
    return done


@fault(OUT, "a file has a second name (hard link)", "replaced; the other name keeps what it held", 0)
def hard_link(place):
    (place.folder / "a.json").write_text("old")
    os.link(place.folder / "a.json", place.folder / "kept.json")
    done = place.convert("json=a.json")
    assert (place.folder / "kept.json").read_text() == "old"
    assert place.saved() == place.saved("saved.json")
    return done


@fault(OUT, "a name of as many bytes as the disk takes", "written", 0)
def long_name(place):
    name = "a" * (os.pathconf(place.folder, "PC_NAME_MAX") - 5) + ".json"
    done = place.convert(f"json={name}")
    assert place.saved(name) == place.saved("saved.json")
    return done


@fault(OUT, "a longer name, a folder that is not there or is a file", "said before any work", 2)
def no_such_place(place):
    name = "a" * os.pathconf(place.folder, "PC_NAME_MAX") + ".json"
    return [
        refused(place.audit("-o", f"json={name}"), "cannot be written (File name too long)"),
        refused(place.audit("-o", "json=none/a.json"), "the folder 'none' does not exist"),
        refused(place.audit("-o", "json=data.npz/a.json"), "'data.npz' is a file, expected a folder"),
        refused(place.audit("-o", "json=data.npz/b/a.json"), "'data.npz/b' lies below a file"),
    ]


@fault(OUT, "two formats go to one file, by its name, a link or another spelling", "said before any work", 2)
def twice(place):
    (place.folder / "old.json").write_text("{}")
    (place.folder / "link").symlink_to("a.json")
    os.link(place.folder / "old.json", place.folder / "hard.json")
    pairs = [
        ("a.json", "a.json"),
        ("a.json", "./a.json"),
        ("a.json", "link"),
        ("old.json", "hard.json"),
        ("home/../a.json", "a.json"),
    ]
    return [
        refused(place.audit("-o", f"json={one}", "-o", f"html={other}"), "json and html would both be written to it")
        for one, other in pairs
    ]


@fault(OUT, "an output is what is read: model, weights, data, labels, baseline, saved audit, settings", "said before any work", 2)
def inputs(place):
    (place.folder / "link").symlink_to("model.onnx")
    (place.folder / "split").mkdir()
    split = models.external(np.eye(4, 6), np.zeros(4), place.folder / "split")
    weights = next(p for p in (place.folder / "split").iterdir() if p != split)
    np.save(place.folder / "labels.npy", np.zeros(12, int))
    (place.folder / "onnxfim.toml").write_text("seed = 1\n")
    before = place.files()
    told = "which is read, expected another file"
    done = [
        *(refused(place.audit("-o", f"json={name}"), told) for name in ("model.onnx", "./data.npz", "link", "onnxfim.toml")),
        refused(place.audit("--labels", "labels.npy", "-o", "json=labels.npy"), told),
        refused(place.audit("--baseline", "saved.json", "-o", "json=saved.json"), told),
        refused(place.run("audit", split, "--data", "data.npz", "-o", f"html={weights}"), told),
        refused(place.convert("html=saved.json"), told),
        refused(place.run("bounds", "model.onnx", "-o", "json=model.onnx"), told),
        refused(place.run("compare", "saved.json", "saved.json", "-o", "json=saved.json"), told),
    ]
    assert place.files() == before
    return done


@fault(OUT, "a name with line breaks or terminal escapes", "told in one line", 2)
def hostile_name(place):
    (place.folder / "a\nb\x1b[2J").mkdir()
    return refused(place.convert("json=a\nb\x1b[2J"), "is a folder")


# Formats.


@fault(
    OUT,
    "a format cannot be made (a defect of onnxfim)",
    "the others are written, this one is named with the cause; the traceback is saved",
    2,
)
def no_rendering(place):
    def breaks(*_, **__):
        raise KeyError("axis\nx")

    place.monkeypatch.setenv("TMPDIR", str(place.folder / "home"))
    place.monkeypatch.setattr(tempfile, "tempdir", None)
    place.monkeypatch.setattr("onnxfim.report.html.render_html", breaks)
    done = place.convert("html=a.html", "json=a.json", "csv=a.csv")
    (line,) = done.output.splitlines()
    assert line.startswith("onnxfim: internal error: ")
    assert "a.html: html could not be made (KeyError: 'axis" in line
    (traceback,) = (place.folder / "home").glob("*.traceback.txt")
    assert "in breaks" in traceback.read_text()
    assert place.saved() == place.saved("saved.json")
    assert (place.folder / "a.csv").exists()
    assert not (place.folder / "a.html").exists()
    return done


@fault(OUT, "the folder of `--html-assets` is a file, or a file is in its way", "said before any work", 2)
def assets_taken(place):
    (place.folder / "taken").write_text("")
    return [
        refused(place.audit("-o", "html=a.html", "--html-assets", name), "taken' is no folder")
        for name in ("taken", "taken/deeper")
    ]


@fault(OUT, "the disk of `--html-assets` is full", "the page is not written, and named; the others are", 2)
def assets_full(place):
    full = place.tmpfs("full", "size=4k")
    done = place.run("convert", "saved.json", "-o", "html=a.html", "-o", "json=a.json", "--html-assets", full)
    assert "cannot be written (No space left on device)" in done.output
    assert not (place.folder / "a.html").exists()
    assert place.saved() == place.saved("saved.json")
    return done
