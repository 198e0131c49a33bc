from __future__ import annotations

import errno
import os
import stat
import threading

import pytest

from onnxfim.errors import OutputError
from onnxfim.record import writing
from onnxfim.record.writing import destination, write_bytes, write_text
from tests.support.audits import make_audit

posix = pytest.mark.skipif(os.name == "nt", reason="Windows has other permissions, and links for few")


def names(folder):
    return sorted(p.name for p in folder.iterdir())


def test_readers_see_the_old_file_or_the_whole_new_one(tmp_path):
    path, texts, seen = tmp_path / "a", ["a" * 300_000, "b" * 200_000], set()
    write_text(path, texts[0])
    done = threading.Event()

    def read():
        while not done.is_set():
            seen.add(path.read_text())

    reader = threading.Thread(target=read)
    reader.start()
    for k in range(30):
        write_text(path, texts[k % 2])
    done.set()
    reader.join()
    assert seen <= set(texts)
    assert names(tmp_path) == ["a"]


def test_half_a_surrogate_pair_is_written_as_its_escape(tmp_path):
    write_text(tmp_path / "a", "x\ud800")
    assert (tmp_path / "a").read_bytes() == b"x\\ud800"


@pytest.mark.parametrize("step", ["fsync", "replace", "open"])
@pytest.mark.parametrize("there", [True, False])
def test_an_interrupt_leaves_nothing_behind(tmp_path, monkeypatch, step, there):
    """However far it came: the old file is whole, no other is there."""
    if there:
        (tmp_path / "a").write_text("old")

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, step, interrupt)
        with pytest.raises(KeyboardInterrupt):
            write_text(tmp_path / "a", "new")
    assert names(tmp_path) == (["a"] if there else [])
    assert not there or (tmp_path / "a").read_text() == "old"


def test_an_interrupt_in_place_puts_back_what_was_there(tmp_path, monkeypatch):
    (tmp_path / "a").write_text("old")
    plain = writing.write_all
    torn = [True]

    def tear(file, content):
        if torn and content != b"old":
            torn.clear()
            plain(file, content[:5])
            raise KeyboardInterrupt
        plain(file, content)

    monkeypatch.setattr(writing, "write_all", tear)
    with pytest.raises(KeyboardInterrupt):
        writing._in_place(str(tmp_path / "a"), lambda: [b"new and longer"])
    assert (tmp_path / "a").read_text() == "old"
    torn.append(True)
    with pytest.raises(KeyboardInterrupt):
        writing._in_place(str(tmp_path / "b"), lambda: [b"new and longer"])
    assert names(tmp_path) == ["a"]


@posix
def test_a_private_file_is_never_open_to_others(tmp_path, monkeypatch):
    """Not even while it is being written."""
    (tmp_path / "a").touch(mode=0o600)
    modes, plain = [], os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (modes.append(stat.S_IMODE(os.fstat(fd).st_mode)), plain(fd)))
    write_text(tmp_path / "a", "secret")
    assert modes == [0o600]
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o600


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOTSUP])
def test_a_disk_that_cannot_sync_is_written_all_the_same(tmp_path, monkeypatch, code):
    def fails(_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fails)
    write_text(tmp_path / "a", "new")
    assert (tmp_path / "a").read_text() == "new"


def test_a_disk_that_takes_a_part_at_a_time_gets_all(tmp_path):
    class Slow:
        def __init__(self):
            self.content = b""

        def write(self, part):
            self.content += bytes(part[:3])
            return min(3, len(part))

    file = Slow()
    writing.write_all(file, b"0123456789")
    assert file.content == b"0123456789"


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("a\0b", "cannot be written (embedded null byte)"),
        ("", "is a folder, expected a file"),
        ("x/", "is a folder, expected a file"),
    ],
)
def test_what_cannot_be_a_file(path, words):
    with pytest.raises(OutputError) as told:
        write_bytes(path, b"")
    assert words in str(told.value)
    assert "\n" not in str(told.value)


@posix
def test_paths_of_one_file_have_one_identity(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to("new")
    spelled = ["new", "./new", str(tmp_path / "new"), "link", f"../{tmp_path.name}/new"]
    assert len({destination(p).identity for p in spelled}) == 1
    write_text("new", "x")
    assert len({destination(p).identity for p in spelled}) == 1
    assert destination("other").identity != destination("new").identity


@posix
def test_an_audit_is_saved_through_the_same_door(tmp_path):
    audit = make_audit()
    (tmp_path / "link.json").symlink_to("real.json")
    audit.save(tmp_path / "link.json")
    assert names(tmp_path) == ["link.json", "real.json"]
    assert type(audit).load(tmp_path / "real.json") == audit
    with pytest.raises(OutputError, match=r"none.*does not exist"):
        audit.save(tmp_path / "none" / "a.json")


def test_a_text_in_parts_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "a"

    def parts():
        yield "one "
        yield "two \udcff"

    writing.write_text(path, parts)
    assert path.read_bytes() == b"one two \\udcff"

    def failing():
        yield "more"
        raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        writing.write_text(path, failing)
    assert path.read_bytes() == b"one two \\udcff"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_cannot_be_replaced_gets_all_parts_again(tmp_path, monkeypatch):
    path = tmp_path / "a"
    path.write_text("old")

    def refused(*_):
        raise OSError(errno.EBUSY, "a mount point")

    monkeypatch.setattr(os, "replace", refused)
    writing.write_text(path, lambda: iter(("one ", "two")))
    assert path.read_text() == "one two"
