"""A folder is written whole or not at all, and never over files of others."""

from __future__ import annotations

import errno
import os

import pytest

from onnxfim.errors import OutputError
from onnxfim.record import writing_folders
from onnxfim.record.writing_folders import folder_destination, write_folder

OLD, NEW = {"a": "old a", "b": "old b", "SUMS": "old sums"}, {"a": "new a", "b": "new b", "SUMS": "new sums"}


def write(path, files):
    write_folder(path, files, "SUMS")


def held(path):
    return {p.name: p.read_text("utf-8") for p in path.iterdir()}


@pytest.mark.parametrize("before", ["nothing", "an empty folder", "an older one", "a link to an older one"])
def test_written_whole(tmp_path, before):
    path = tmp_path / "d"
    if before == "an empty folder":
        path.mkdir()
    elif before == "an older one":
        write(path, OLD)
    elif before == "a link to an older one":
        write(tmp_path / "real", OLD)
        path.symlink_to("real")
    write(path, NEW)
    assert held(path) == NEW
    assert path.is_symlink() == before.startswith("a link")
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted({"d", *(["real"] if path.is_symlink() else [])})


def test_permissions_of_the_old_folder_stay(tmp_path):
    write(tmp_path / "d", OLD)
    (tmp_path / "d").chmod(0o750)
    write(tmp_path / "d", NEW)
    assert (tmp_path / "d").stat().st_mode & 0o777 == 0o750


@pytest.mark.parametrize(
    ("names", "message"),
    [(["mine.txt"], "holds 'mine.txt' and is no dossier"), (["a"], "holds 'a' and is no dossier"), (["SUMS", "x"], "holds 'x'")],
)
def test_files_of_others_stay(tmp_path, names, message):
    folder = tmp_path / "d"
    folder.mkdir()
    for name in names:
        (folder / name).write_text("mine")
    with pytest.raises(OutputError, match=message):
        write(folder, NEW)
    assert held(folder) == dict.fromkeys(names, "mine")


def test_a_folder_of_one_of_the_names_stays(tmp_path):
    write(tmp_path / "d", OLD)
    (tmp_path / "d/a").unlink()
    (tmp_path / "d/a").mkdir()
    with pytest.raises(OutputError, match="holds 'a' and is no dossier"):
        write(tmp_path / "d", NEW)


@pytest.mark.parametrize(
    ("path", "message"), [("no/d", "the folder '.*no' does not exist"), ("file", "is no folder"), ("a\0b", "embedded null")]
)
def test_where_no_folder_can_be(tmp_path, path, message):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=message):
        folder_destination(f"{tmp_path}/{path}", NEW, "SUMS")


@pytest.mark.parametrize("failing", ["a", "b", "SUMS"])
def test_a_disk_that_fails_leaves_the_old_one(tmp_path, monkeypatch, failing):
    write(tmp_path / "d", OLD)
    true = writing_folders.write_bytes

    def write_bytes(path, content):
        if os.path.basename(path) == failing:
            raise OutputError(f"{path}: cannot be written (No space left on device). Write elsewhere.")
        true(path, content)

    monkeypatch.setattr(writing_folders, "write_bytes", write_bytes)
    with pytest.raises(OutputError, match="No space left"):
        write(tmp_path / "d", NEW)
    assert held(tmp_path / "d") == OLD
    assert [p.name for p in tmp_path.iterdir()] == ["d"]


def test_a_move_that_fails_puts_the_old_one_back(tmp_path, monkeypatch):
    write(tmp_path / "d", OLD)
    true, calls = os.rename, []

    def rename(source, target):
        calls.append(source)
        if len(calls) == 2:
            raise OSError(errno.EIO, "Input/output error")
        true(source, target)

    monkeypatch.setattr(os, "rename", rename)
    with pytest.raises(OutputError, match="Input/output error"):
        write(tmp_path / "d", NEW)
    assert held(tmp_path / "d") == OLD
    assert [p.name for p in tmp_path.iterdir()] == ["d"]


@pytest.mark.parametrize("code", [errno.EBUSY, errno.EACCES])
def test_a_folder_that_cannot_be_moved_is_written_in_place_with_its_mark_last(tmp_path, monkeypatch, code):
    write(tmp_path / "d", OLD)
    order, true = [], writing_folders.write_bytes

    def busy(source, target):
        raise OSError(code, "Device or resource busy")

    monkeypatch.setattr(os, "rename", busy)
    monkeypatch.setattr(writing_folders, "write_bytes", lambda path, data: (order.append(path), true(path, data)))
    write(tmp_path / "d", NEW)
    assert held(tmp_path / "d") == NEW
    assert order[-1] == str(tmp_path / "d/SUMS")
    assert [p.name for p in tmp_path.iterdir()] == ["d"]


def test_the_working_folder_stays_the_same_one(tmp_path, monkeypatch):
    folder = tmp_path / "d"
    write(folder, OLD)
    before = folder.stat().st_ino
    monkeypatch.chdir(folder)
    write(".", NEW)
    assert held(folder) == NEW
    assert folder.stat().st_ino == before
