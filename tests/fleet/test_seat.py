from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import onnx
import pytest

import onnxfim
from onnxfim import fleet
from onnxfim.errors import InputError, ModelError, OutputError
from onnxfim.fleet.seat import Materials, Seat, heard, materials
from onnxfim.graph.load import load_model
from onnxfim.record.shard import Shard
from tests.support.places import SAMPLES

MODEL = SAMPLES / "digits_mlp.onnx"


@pytest.fixture(scope="module")
def data():
    return onnxfim.load_samples(str(SAMPLES / "digits.npz"), str(MODEL), limit=12)


@pytest.fixture(scope="module")
def plan(data):
    return fleet.plan(MODEL, data, settings=onnxfim.Settings(samples=12, batch=16))


@pytest.fixture
def temp(tmp_path, monkeypatch):
    """The temporary folder of a worker's machine."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_a_seat_measures_what_the_library_does(plan, data, temp):
    seat = Seat(materials("a" * 32, load_model(MODEL), data), 1)
    heard(seat.open(plan.to_json()))
    told = heard(seat.measure(7, plan.audited[3:6]))
    with fleet.opened(plan, MODEL, data) as work:
        assert Shard.from_json(told["shard"]).samples == work.measure(plan.audited[3:6]).samples
    assert told["number"] == 7
    assert told["seconds"] > 0


def test_the_models_files_are_there_while_it_is_open_and_gone_afterwards(plan, data, temp):
    seats = [Seat(materials("a" * 32, load_model(MODEL), data), 1) for _ in range(2)]
    for seat in seats:
        heard(seat.open(plan.to_json()))
    (folder,) = temp.iterdir()
    assert {p.name for p in folder.iterdir()} == {MODEL.name, ".in-use"}
    if os.name == "posix":
        assert folder.stat().st_mode & 0o77 == 0  # weights may be secret
    heard(seats[0].leave())
    assert list(temp.iterdir()) == []
    assert Shard.from_json(heard(seats[1].measure(1, plan.audited[:2]))["shard"]).samples  # it goes on
    heard(seats[1].leave())


def test_weights_in_a_cache_of_downloads_come_by_the_names_that_the_model_has(data, tmp_path, temp):
    (tmp_path / "blobs").mkdir()
    real = tmp_path / "blobs" / "abc"
    onnx.save_model(onnx.load(MODEL), real, save_as_external_data=True, location="weights.bin", size_threshold=512)
    (tmp_path / "blobs" / "weights.bin").rename(tmp_path / "blobs" / "def")
    link = tmp_path / "model.onnx"
    link.symlink_to(real)
    (tmp_path / "weights.bin").symlink_to(tmp_path / "blobs" / "def")
    given = materials("b" * 32, load_model(link), data)
    assert list(given.files) == ["model.onnx", "weights.bin"]
    plan = fleet.plan(link, data, settings=onnxfim.Settings(samples=12, batch=16))
    seat = Seat(given, 1)
    heard(seat.open(plan.to_json()))
    heard(seat.leave())


def test_weights_beyond_the_folder_are_not_sent(data, tmp_path):
    (tmp_path / "blobs").mkdir()
    (tmp_path / "snapshot").mkdir()
    proto = onnx.load(MODEL)
    onnx.save_model(proto, tmp_path / "blobs" / "abc", save_as_external_data=True, location="weights.bin", size_threshold=512)
    proto = onnx.load(tmp_path / "blobs" / "abc", load_external_data=False)
    for tensor in proto.graph.initializer:
        for entry in tensor.external_data:
            entry.value = "../blobs/weights.bin" if entry.key == "location" else entry.value
    (tmp_path / "blobs" / "abc").write_bytes(proto.SerializeToString())
    link = tmp_path / "snapshot" / "model.onnx"
    link.symlink_to(tmp_path / "blobs" / "abc")
    with pytest.raises(ModelError, match=r"model\.onnx: keeps weights in '\.\./blobs/weights\.bin', beyond its folder"):
        materials("b" * 32, load_model(link), data)


def test_a_model_that_was_written_to_is_not_sent(data, tmp_path):
    path = tmp_path / "m.onnx"
    shutil.copy(MODEL, path)
    file = load_model(path)
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(ModelError, match=r"m\.onnx: was written to since it was opened"):
        materials("c" * 32, file, data)


def test_errors_are_answers(plan, data, temp):
    seat = Seat(materials("d" * 32, load_model(MODEL), data), 1)
    with pytest.raises(OutputError, match="expected a plan"):
        heard(seat.open("{}"))
    heard(seat.open(plan.to_json()))
    with pytest.raises(InputError, match="sample 99 is none of those"):
        heard(seat.measure(1, [99]))
    heard(seat.leave())


def test_other_samples_than_were_planned_are_refused(plan, data, temp):
    from dataclasses import replace

    other = replace(data, inputs=np.roll(data.inputs, 1, axis=-1))
    seat = Seat(materials("e" * 32, load_model(MODEL), other), 1)
    with pytest.raises(InputError, match="is another one than was planned"):
        heard(seat.open(plan.to_json()))


def test_a_machine_without_room_says_so_in_one_line(plan, data, temp, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    seat = Seat(materials("f" * 32, load_model(MODEL), data), 1)
    with pytest.raises(ModelError, match=r"digits_mlp\.onnx: cannot be written \(.*No space left on device\)\. Make room"):
        heard(seat.open(plan.to_json()))
    assert [p.name for p in Path(temp).rglob("*") if p.is_file()] == [".in-use"]


@pytest.mark.skipif(os.name != "posix", reason="folders have owners on POSIX")
def test_another_users_folder_is_not_written_to(plan, data, temp, monkeypatch):
    seat = Seat(materials("0" * 32, load_model(MODEL), data), 1)
    (temp / ("onnxfim-" + "0" * 32)).mkdir()
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    with pytest.raises(ModelError, match="is another user's folder"):
        heard(seat.open(plan.to_json()))


def test_who_left_writes_no_files_any_more(plan, data, temp):
    seat = Seat(materials("a" * 32, load_model(MODEL), data), 1)
    heard(seat.leave())
    with pytest.raises(ModelError, match="the run is over"):
        heard(seat.open(plan.to_json()))
    assert list(temp.iterdir()) == []


@pytest.mark.skipif(os.name != "posix", reason="locks of POSIX")
def test_what_a_killed_run_left_is_removed_by_the_next_and_what_is_in_use_is_not(plan, data, temp):
    used, left, young = (temp / f"onnxfim-{letter * 32}" for letter in "abc")
    other = temp / "onnxfim-notes"
    seat = Seat(materials("a" * 32, load_model(MODEL), data), 1)
    heard(seat.open(plan.to_json()))
    for folder in (left, young, other):
        folder.mkdir()
        (folder / "model.onnx").write_bytes(b"x")
    for folder in (used, left, other):
        os.utime(folder, (0, 0))
    later = Seat(materials("d" * 32, load_model(MODEL), data), 1)
    heard(later.open(plan.to_json()))
    assert {p.name for p in temp.iterdir()} == {used.name, young.name, other.name, f"onnxfim-{'d' * 32}"}
    for one in (seat, later):
        heard(one.leave())


def test_materials_are_arrays_that_shared_memory_can_hold(data):
    given = materials("1" * 32, load_model(MODEL), data)
    assert isinstance(given, Materials)
    assert all(a.dtype == np.uint8 for a in given.files.values())
    assert given.samples.inputs.flags.c_contiguous
    assert bytes(given.files[MODEL.name]) == MODEL.read_bytes()
