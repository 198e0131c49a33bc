"""Samples that are read at need: the same as those held in memory, from every source, in every part of them."""

from __future__ import annotations

import io
import json
import os
import pickle
import tarfile
import tracemalloc
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from onnxfim.auditing.common_step import Candidate
from onnxfim.auditing.in_flight import Orders
from onnxfim.auditing.jobs import AuditJob, Task
from onnxfim.auditing.packing import pack, unpack
from onnxfim.data import Preprocessing, from_arrays, from_steps, lazy_rows, load
from onnxfim.data.lazy_rows import LazyRows, rows_in_blocks
from onnxfim.data.stored_rows import Collected, FileRows
from onnxfim.errors import InputError
from onnxfim.record.settings import Settings
from tests.support.places import DEV

SHAPE = (3, 4, 5)
N = 23


def values(seed=0):
    return np.random.default_rng(seed).normal(size=(N, *SHAPE)).astype(np.float32)


def labels():
    return np.arange(N) % 4


def some_bad():
    X = values()
    X[4, 0, 0, 0], X[11, 1] = np.nan, np.inf
    return X


def npy(folder, X=None, name="x.npy"):
    np.save(folder / name, values() if X is None else X)
    np.save(folder / "y.npy", labels())
    return folder / name


def pictures(folder):
    Image = DEV.load("PIL.Image")
    rng = np.random.default_rng(1)
    for k in range(N):
        place = folder / "pictures" / f"class{k % 3}"
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (4, 5, 3)).astype(np.uint8)).save(place / f"{k:02}.png")
    (folder / "pictures" / "class0" / "99.png").write_bytes(b"no picture")
    return folder / "pictures"


def encoded(value, size=(4, 5)):
    sink = io.BytesIO()
    DEV.load("PIL.Image").fromarray(np.full(size, value, np.uint8)).save(sink, "PNG")
    return sink.getvalue()


def tar_of(path, members):
    with tarfile.open(path, "w") as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def tar_of_arrays(folder):
    def content(x):
        sink = io.BytesIO()
        np.save(sink, x)
        return sink.getvalue()

    X = some_bad()
    members = [(f"{k:03}.npy", content(np.asfortranarray(X[k]) if k % 2 else X[k])) for k in range(N)]
    members += [(f"{k:03}.json", json.dumps({"label": k % 4}).encode()) for k in range(N) if k != 7]
    return tar_of(folder / "x.tar", members)


def tar_of_pictures(folder):
    members = [
        (f"a/{k:03}.{'cls' if text else 'png'}", str(k % 4).encode() if text else encoded(k)) for k in range(N) for text in (0, 1)
    ]
    return tar_of(folder / "x.tar", [*members, ("a/bad.png", b"no picture"), ("a/bad.cls", b"1")])


def parquet(folder, columns, **options):
    pa, pq = DEV.load("pyarrow"), DEV.load("pyarrow.parquet")
    pq.write_table(pa.table(columns), folder / "x.parquet", **options)
    return folder / "x.parquet"


def numbers(folder):
    X = values().reshape(N, -1)
    columns = {f"f{k}": X[:, k].tolist() for k in range(60)}
    columns["f3"][5] = None
    return parquet(folder, {**columns, "label": labels().tolist()}, row_group_size=5)


def whole_then_missing(folder):
    """The first batch is of whole numbers, a later one has a missing value and so is of floats."""
    first = [list(range(k, k + 60)) for k in range(1500)]
    return parquet(folder, {"x": [*first, None, list(range(60))], "label": [0, 1] * 751})


def parquet_pictures(folder):
    return parquet(folder, {"image": [encoded(k) for k in range(N)], "label": labels().tolist()})


def csv(folder):
    rows = [",".join([*map(repr, x.ravel().tolist()), f"c{k % 4}"]) for k, x in enumerate(values())]
    (folder / "x.csv").write_text("\n".join([",".join([*(f"f{k}" for k in range(60)), "label"]), *rows]))
    return folder / "x.csv"


def saved(folder, compressed=False, **arrays):
    (np.savez_compressed if compressed else np.savez)(folder / "x.npz", **arrays)
    return folder / "x.npz"


SOURCES = {
    "npy": lambda f: load(npy(f), shape=SHAPE, labels_path=f / "y.npy"),
    "npy, a draw": lambda f: load(npy(f), shape=SHAPE, labels_path=f / "y.npy", limit=9, seed=2),
    "npy, some bad": lambda f: load(npy(f, some_bad()), shape=SHAPE),
    "npy, by columns": lambda f: load(npy(f, np.asfortranarray(some_bad())), shape=SHAPE),
    "npy, by columns, a draw": lambda f: load(npy(f, np.asfortranarray(values())), shape=SHAPE, limit=9, seed=2),
    "npy of float64": lambda f: load(npy(f, some_bad().astype(">f8")), shape=SHAPE),
    "npy that overflows": lambda f: load(npy(f, np.where(values() > 2.5, 1e300, values().astype(np.float64))), shape=SHAPE),
    "npy of bytes": lambda f: load(
        npy(f, np.random.default_rng(0).integers(0, 256, (N, 4, 5, 3)).astype(np.uint8)), shape=SHAPE,
        preprocessing=Preprocessing(mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7), layout="NCHW"),
    ),
    "npy of whole numbers": lambda f: load(npy(f, (99 * values()).astype(np.int16)), shape=SHAPE, dtype=np.int64),
    "npz": lambda f: load(saved(f, inputs=some_bad(), labels=labels(), mask=np.arange(2 * N).reshape(N, 2)), shape=SHAPE, held=("mask",)),
    "npz, compressed": lambda f: load(saved(f, compressed=True, inputs=some_bad(), labels=labels()), shape=SHAPE),
    "npz, compressed, by columns": lambda f: load(saved(f, compressed=True, inputs=np.asfortranarray(values())), shape=SHAPE),
    "images": lambda f: load(pictures(f), shape=SHAPE),
    "images, a draw": lambda f: load(pictures(f), shape=(3, 3, 3), limit=8, preprocessing=Preprocessing(resize=3, crop=3, layout="NCHW")),
    "tar of arrays": lambda f: load(tar_of_arrays(f), shape=SHAPE),
    "tar of arrays, a draw": lambda f: load(tar_of_arrays(f), shape=SHAPE, limit=11),
    "tar of pictures": lambda f: load(tar_of_pictures(f), shape=(1, 4, 5)),
    "parquet": lambda f: load(numbers(f), shape=SHAPE),
    "parquet, a draw": lambda f: load(numbers(f), shape=(60,), limit=9, seed=1),
    "parquet of lists of two types": lambda f: load(whole_then_missing(f), shape=(60,)),
    "parquet of pictures": lambda f: load(parquet_pictures(f), shape=(1, 4, 5)),
    "csv": lambda f: load(csv(f), shape=(60,)),
    "arrays": lambda f: from_arrays(some_bad(), labels(), shape=SHAPE),
    "a mapped array": lambda f: from_arrays(np.load(npy(f, some_bad()), mmap_mode="r"), labels(), shape=SHAPE),
    "steps": lambda f: from_steps(((x, y) for x, y in zip(some_bad(), labels(), strict=True)), shape=SHAPE),
    "steps, some": lambda f: from_steps(((x, y) for x, y in zip(values(), labels(), strict=True)), shape=SHAPE, limit=7),
}  # fmt: skip


@pytest.fixture
def small(monkeypatch):
    """Everything is too large for memory, and goes by a few rows."""

    def set_() -> None:
        monkeypatch.setattr(lazy_rows, "LAZY_BYTES", 0)
        monkeypatch.setattr(lazy_rows, "BLOCK_BYTES", 700)

    return set_


@pytest.fixture(params=SOURCES)
def both(request, tmp_path, small):
    eager = SOURCES[request.param](tmp_path)
    small()
    return eager, SOURCES[request.param](tmp_path)


def same(eager, lazy):
    assert isinstance(eager.inputs, np.ndarray)
    assert isinstance(lazy.inputs, LazyRows)
    for f in fields(eager):
        ours, theirs = getattr(eager, f.name), getattr(lazy, f.name)
        if f.name == "inputs":
            assert (lazy.inputs.shape, lazy.inputs.dtype, lazy.inputs.nbytes) == (ours.shape, ours.dtype, ours.nbytes)
            assert_array_equal(theirs[:], ours, strict=True)
        elif f.name == "held":
            assert ours.keys() == theirs.keys()
            for name in ours:
                assert_array_equal(ours[name], theirs[name], strict=True)
        elif isinstance(ours, np.ndarray):
            assert_array_equal(ours, theirs, strict=True)
        else:
            assert ours == theirs, f.name


def test_all_that_is_told_is_the_same(both):
    same(*both)


def test_parts_are_those_of_the_array(both):
    X, rows = both[0].inputs, both[1].inputs
    last = len(X) - 1
    for key in (
        0,
        -1,
        last,
        np.int64(2),
        slice(1, 5),
        slice(None, None, 3),
        [3, 1, 1],
        np.array([last, 0]),
        np.arange(len(X)) % 2 == 0,
        [],
    ):
        assert_array_equal(
            rows[key], X[np.asarray(key, int) if key == [] else key] if isinstance(key, list) else X[key], strict=True
        )
    assert_array_equal(np.concatenate(list(rows_in_blocks(rows))), X)
    assert_array_equal(np.stack(list(rows)), X)
    assert (rows.min(), rows.max()) == (X.min(), X.max())
    assert_array_equal(rows.min(axis=0), X.min(axis=0), strict=True)
    assert_array_equal(rows.max(axis=0), X.max(axis=0), strict=True)


def test_parts_of_the_samples_are_read_at_need_too(both):
    eager, lazy = both
    same(eager.take([0, 2, 3]), lazy.take([0, 2, 3]))
    same(eager.first(4), lazy.first(4))
    same(eager.without({int(eager.indices[1]): "why"}), lazy.without({int(eager.indices[1]): "why"}))


def test_another_process_reads_the_same(both, tmp_path):
    eager, lazy = both
    path = pack(Task(AuditJob(Candidate("m.onnx", lazy, Settings())), Orders(), 30), tmp_path)
    (candidate,) = unpack(path).job.candidates
    same(eager, candidate.inputs)
    assert_array_equal(pickle.loads(pickle.dumps(lazy)).inputs[:], eager.inputs, strict=True)


def test_numbers_in_a_file_travel_as_their_place(tmp_path, small):
    small()
    lazy = load(npy(tmp_path), shape=SHAPE)
    folder = tmp_path / "task"
    folder.mkdir()
    pack(Task(AuditJob(Candidate("m.onnx", lazy, Settings())), Orders(), 30), folder)
    assert max(p.stat().st_size for p in folder.glob("*.npy")) < values().nbytes / 4


@pytest.mark.parametrize(
    ("X", "how", "told"),
    [
        (np.full((N, 3), np.nan), {}, "none of the 23 selected samples"),
        (
            np.linspace(0, 7, 3 * N).reshape(N, 3),
            {"preprocessing": Preprocessing(input_range=(0, 1), mean=(0.5,))},
            "run from 0 to 7",
        ),
        (np.where(np.arange(3 * N).reshape(N, 3) == 50, 0.5, 1.0), {"dtype": np.int64}, "float64 values from 0.5 to 1"),
        (np.arange(3 * N).reshape(N, 3) * 10**9, {}, "whole numbers up to 68000000000"),
        (np.array([["a"] * 3] * N), {}, "holds text"),
    ],
)
def test_what_is_refused_is_refused_in_the_same_words(tmp_path, small, X, how, told):
    path = npy(tmp_path, X)
    with pytest.raises(InputError) as eager:
        load(path, shape=(3,), **how)
    small()
    with pytest.raises(InputError, match=told) as lazy:
        load(path, shape=(3,), **how)
    assert str(lazy.value) == str(eager.value)


def test_small_data_stay_arrays(tmp_path):
    assert isinstance(load(npy(tmp_path), shape=SHAPE).inputs, np.ndarray)


def test_it_becomes_no_array_unasked(tmp_path, small):
    small()
    X = load(npy(tmp_path), shape=SHAPE).inputs
    for use in (np.asarray, np.sum, lambda rows: np.zeros((N, *SHAPE)) + rows):
        with pytest.raises(TypeError, match=r"X\[:\]|unsupported"):
            use(X)
    for key in ((0, 1), None, np.zeros((2, 2), int), 1.5, np.array([0.5])):
        with pytest.raises(TypeError, match=r"read at need|axis alone"):
            X[key]
    with pytest.raises(IndexError):
        X[N]


@pytest.mark.parametrize("change", ["longer", "written again", "gone", "shorter"])
@pytest.mark.parametrize("source", ["npy", "images", "tar of arrays"])
def test_data_that_change_meanwhile_are_refused(tmp_path, small, source, change):
    if (source, change) == ("tar of arrays", "gone"):
        pytest.skip("what is open can still be read")
    small()
    found = SOURCES[source](tmp_path)
    reader = found.inputs.reader
    (path, *_) = getattr(reader, "ranges", getattr(getattr(reader, "raw", None), "ranges", None)).files
    content = Path(path).read_bytes()
    if change == "gone":
        os.unlink(path)
    else:
        with open(path, "wb") as file:
            file.write({"longer": content + b"x", "shorter": content[:-1], "written again": content}[change])
        os.utime(path, (1, 1))
    with pytest.raises(InputError, match=r"was changed while it was read|cannot be read any more"):
        found.inputs[:]


def test_rows_that_cost_much_are_made_once(tmp_path, small, monkeypatch):
    from onnxfim.data import decoding

    small()
    found = load(pictures(tmp_path), shape=SHAPE)
    made = []
    real = decoding._decode
    monkeypatch.setattr(decoding, "_decode", lambda content, *rest: made.append(1) or real(content, *rest))
    first = [found.inputs[k] for k in (0, 1, 2)]
    assert_array_equal(found.inputs[[2, 0, 1]], [first[2], first[0], first[1]])
    assert len(made) == 3
    monkeypatch.setattr(lazy_rows, "_KEPT_BYTES", 2 * found.inputs[0].nbytes)
    for k in range(10):
        found.inputs[k]
    assert len(found.inputs._kept) == 2


def test_a_full_disk_is_told_in_one_line(tmp_path, small, monkeypatch):
    path = saved(tmp_path, compressed=True, inputs=values())
    small()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match=r"x.npz\[inputs\]: .* cannot be written to a temporary file .*TMPDIR"):
        load(path, shape=SHAPE)


def test_a_temporary_file_goes_with_its_samples(tmp_path, small, monkeypatch):
    path = saved(tmp_path, compressed=True, inputs=values())
    folder = tmp_path / "temporary"
    folder.mkdir()
    small()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    found = load(path, shape=SHAPE)
    part = found.take([1, 2])
    del found
    assert len(list(folder.iterdir())) == 1
    assert_array_equal(part.inputs[:], values()[1:3])
    del part
    assert not list(folder.iterdir())


def test_parts_of_several_types_become_one(small):
    small()
    parts = [np.arange(6).reshape(2, 3), np.full((1, 3), 0.5, np.float32), np.full((2, 3), np.nan)]
    found = Collected("x")
    for part in parts:
        found.add(part)
    rows = found.rows()
    assert isinstance(rows, FileRows)
    assert_array_equal(rows.read(np.arange(5)), np.concatenate(parts), strict=True)


@pytest.mark.parametrize("source", ["npy", "npz", "npz, compressed", "tar"])
def test_memory_holds_a_part_of_the_data(tmp_path, monkeypatch, source):
    """Reading, checking and going through 24 MB takes a few blocks; a single copy of them would take more than is allowed."""
    X = np.random.default_rng(0).random((2000, 3000), np.float32)
    if source == "tar":
        with tarfile.open(tmp_path / "x.tar", "w") as archive:
            for k, x in enumerate(X):
                sink = io.BytesIO()
                np.save(sink, x)
                info = tarfile.TarInfo(f"{k}.npy")
                info.size = sink.tell()
                sink.seek(0)
                archive.addfile(info, sink)
        path = tmp_path / "x.tar"
    else:
        path = npy(tmp_path, X) if source == "npy" else saved(tmp_path, compressed="," in source, inputs=X)
    size, want = X.nbytes, float(X.max())
    del X
    monkeypatch.setattr(lazy_rows, "LAZY_BYTES", 2**20)
    monkeypatch.setattr(lazy_rows, "BLOCK_BYTES", 2**20)
    tracemalloc.start()
    try:
        found = load(path, shape=(3000,))
        assert found.inputs.max() == want
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < size / 3
