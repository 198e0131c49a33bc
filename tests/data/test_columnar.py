"""Parquet files and Hugging Face data sets on disk, written by pyarrow as these programs write them."""

from __future__ import annotations

import io
import json
from contextlib import suppress

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from onnxfim.data import from_arrays, load
from onnxfim.errors import InputError
from tests.support.places import DEV

pa = DEV.load("pyarrow")
pq = DEV.load("pyarrow.parquet")
Image = DEV.load("PIL.Image")

IMAGE = pa.struct({"bytes": pa.binary(), "path": pa.string()})


def picture(value):
    sink = io.BytesIO()
    Image.fromarray(np.full((4, 5), value, np.uint8)).save(sink, "PNG")
    return {"bytes": sink.getvalue(), "path": f"/far/away/{value}.png"}


@pytest.fixture
def parquet(tmp_path):
    def save(columns, name="d.parquet", metadata=None, **options):
        table = pa.table(columns)
        pq.write_table(table.replace_schema_metadata(metadata) if metadata else table, tmp_path / name, **options)
        return tmp_path / name

    return save


@pytest.fixture
def on_disk(tmp_path):
    """What `datasets.save_to_disk` writes: Arrow streams, and two files that tell of them."""

    def save(columns, features, name="set", shards=1):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        table = pa.table(columns)
        files = [f"data-{i:05}-of-{shards:05}.arrow" for i in range(shards)]
        size = -(-len(table) // shards)
        for i, file in enumerate(files):
            part = table.slice(i * size, size)
            with pa.OSFile(str(folder / file), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
                writer.write_table(part, max_chunksize=3)
        (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": f} for f in files], "_split": None}))
        (folder / "dataset_info.json").write_text(json.dumps({"features": features}))
        return folder

    return save


CLASS = {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}, "image": {"_type": "Image"}}


class TestParquet:
    def test_columns_of_numbers(self, parquet):
        X = np.random.default_rng(0).random((50, 2)).astype(np.float32)
        y = np.arange(50) % 3
        found = load(parquet({"a": X[:, 0], "b": X[:, 1], "label": y}, row_group_size=7), shape=(2,), limit=20)
        assert_array_equal(found.inputs, X[:20])
        assert_array_equal(found.labels, y[:20])
        assert found.feature_names == ("a", "b")
        assert found.sha256 == from_arrays(X[:20], y[:20]).sha256, "as any container of the same values"

    def test_a_seeded_draw_is_that_of_arrays(self, parquet):
        X = np.random.default_rng(0).random((40, 2))
        path = parquet({"a": X[:, 0], "b": X[:, 1]}, row_group_size=6)
        found, twin = load(path, limit=9, seed=4), from_arrays(X, limit=9, seed=4)
        assert_array_equal(found.indices, twin.indices)
        assert_array_equal(found.inputs, twin.inputs)

    def test_rows_with_missing_values_are_skipped(self, parquet):
        found = load(parquet({"a": [1.0, None, 3.0, 4.0], "b": [1, 2, None, 4], "label": pa.array([0, 1, 0, None], pa.int64())}))
        reasons = ["has no value in column 'a'", "has no value in column 'b'", "has no label"]
        assert [(s.index, s.reason) for s in found.skipped] == list(zip((1, 2, 3), reasons, strict=True))
        assert_array_equal(found.inputs, [[1, 1]])

    def test_numbers_of_every_kind(self, parquet):
        from decimal import Decimal

        columns = {
            "b": [True, False],
            "h": pa.array(np.array([0.5, 1], np.float16)),
            "d": [Decimal("1.25"), Decimal("2.50")],
            "u": pa.array([1, 2], pa.uint8()),
        }
        assert_array_equal(load(parquet(columns)).inputs, [[1, 0.5, 1.25, 1], [0, 1, 2.5, 2]])

    @pytest.mark.parametrize("kind", [pa.list_(pa.float32()), pa.list_(pa.float32(), 4), pa.large_list(pa.float32())])
    def test_lists_are_samples(self, parquet, kind):
        X = np.arange(12, dtype=np.float32).reshape(3, 4)
        path = parquet({"id": ["a", "b", "c"], "x": pa.array(X.tolist(), kind), "label": ["u", "v", "u"]})
        found = load(path, shape=(1, 2, 2))
        assert_array_equal(found.inputs, X.reshape(3, 1, 2, 2))
        assert (found.labels.tolist(), found.class_names, found.feature_names) == ([0, 1, 0], ("u", "v"), None)

    def test_lists_of_lists(self, parquet):
        X = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
        assert_array_equal(load(parquet({"x": [x.tolist() for x in X]}), shape=(1, 3, 4)).inputs, X[:, None])

    def test_a_missing_list_is_skipped(self, parquet):
        found = load(parquet({"x": [[1.0, 2.0], None, [3.0, 4.0]]}))
        assert ([s.index for s in found.skipped], found.inputs.tolist()) == ([1], [[1, 2], [3, 4]])

    def test_words_are_numbered_by_all_of_them(self, parquet):
        path = parquet({"a": [1.0, 2.0, 3.0], "label": pa.array(["c", "b", "a"]).dictionary_encode()})
        found = load(path, limit=1)
        assert (found.labels.tolist(), found.class_names, found.classes_guessed) == ([2], ("a", "b", "c"), True)

    def test_hugging_faces_own_names(self, parquet):
        told = {"huggingface": json.dumps({"info": {"features": {"kind": {"names": ["x", "y"], "_type": "ClassLabel"}}}})}
        found = load(parquet({"a": [1.0, 2.0], "kind": [1, 0]}, metadata=told))
        assert (found.labels.tolist(), found.class_names, found.classes_guessed) == ([1, 0], ("x", "y"), False)

    def test_pictures(self, parquet):
        path = parquet({"image": pa.array([picture(v) for v in (0, 51, 102)], IMAGE), "label": [1, 0, 1]})
        found = load(path, shape=(1, 4, 5))
        assert_array_equal(np.rint(found.inputs[:, 0, 0, 0] * 255), [0, 51, 102])
        assert (found.labels.tolist(), found.names) == ([1, 0, 1], ("0 0.png", "1 51.png", "2 102.png"))
        bare = parquet({"x": pa.array([picture(v)["bytes"] for v in (0, 51, 102)])}, "bare.parquet")
        assert_array_equal(load(bare, shape=(1, 4, 5)).inputs, found.inputs)

    def test_shards_of_one_split(self, parquet, tmp_path, told):
        for i in range(2):
            parquet({"a": [10.0 * i, 10.0 * i + 1]}, f"test-0000{i}-of-00002.parquet")
        assert_array_equal(load(tmp_path).inputs[:, 0], [0, 1, 10, 11])
        parquet({"a": [9.0]}, "train-00000-of-00001.parquet")
        with pytest.raises(InputError, match=told("Parquet files of test, train", "one split")):
            load(tmp_path)


class TestDataSetsOnDisk:
    def test_pictures_and_the_names_of_their_classes(self, on_disk):
        folder = on_disk({"image": pa.array([picture(10 * i) for i in range(8)], IMAGE), "label": [0, 1] * 4}, CLASS, shards=2)
        found = load(folder, shape=(1, 4, 5))
        assert_array_equal(np.rint(found.inputs[:, 0, 0, 0] * 255), range(0, 80, 10))
        assert (found.labels.tolist(), found.class_names, found.classes_guessed) == ([0, 1] * 4, ("cat", "dog"), False)
        part = load(folder, shape=(1, 4, 5), limit=3)
        assert len(part) == 3
        assert part.indices.tolist() != [0, 1, 2], "drawn, for a set may be ordered by class"
        assert_array_equal(part.inputs, found.inputs[part.indices])

    def test_one_split_is_asked_for(self, on_disk, tmp_path, told):
        for split in ("train", "test"):
            on_disk({"a": [1.0], "label": [0]}, {}, f"all/{split}")
        (tmp_path / "all" / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
        with pytest.raises(InputError, match=told("holds the splits train, test", "all/test")):
            load(tmp_path / "all")
        (tmp_path / "all" / "dataset_dict.json").write_text('{"splits": ["test"]}')
        assert len(load(tmp_path / "all")) == 1

    def test_two_columns_of_classes(self, on_disk, told):
        names = {"names": ["a", "b"], "_type": "ClassLabel"}
        folder = on_disk({"x": [1.0, 2.0], "fine": [0, 1], "coarse": [1, 1]}, {"fine": names, "coarse": names})
        with pytest.raises(InputError, match=told("labels in 'fine', 'coarse'", "--label-column")):
            load(folder)
        assert load(folder, label_column="coarse", feature_columns=["x"]).labels.tolist() == [1, 1]

    def test_no_label_is_minus_one(self, on_disk):
        folder = on_disk({"image": pa.array([picture(0), picture(1)], IMAGE), "label": [-1, 1]}, CLASS)
        found = load(folder, shape=(1, 4, 5))
        assert ([s.reason for s in found.skipped], found.labels.tolist()) == (["row 0 has no label"], [1])

    def test_no_label_is_minus_one_beside_numbers(self, on_disk, parquet, told):
        folder = on_disk({"a": [1.0, 2.0], "label": [-1, 1]}, {"label": CLASS["label"]})
        assert [s.index for s in load(folder).skipped] == [0]
        with pytest.raises(InputError, match=told("label -1 of sample 0 is no class index")):
            load(parquet({"a": [1.0, 2.0], "label": [-1, 1]}))

    def test_files_that_rows_only_name_are_not_opened(self, on_disk, tmp_path, told):
        (tmp_path / "x.png").write_bytes(picture(1)["bytes"])
        folder = on_disk({"image": pa.array([{"bytes": None, "path": str(tmp_path / "x.png")}], IMAGE), "label": [0]}, CLASS)
        with pytest.raises(InputError, match=told("names a file instead of holding its bytes")):
            load(folder, shape=(1, 4, 5))

    def test_files_outside_the_folder_are_not_read(self, on_disk, told):
        folder = on_disk({"a": [1.0]}, {})
        (folder / "state.json").write_text('{"_data_files": [{"filename": "../other/secret.arrow"}]}')
        with pytest.raises(InputError, match=told("lacks files", "secret.arrow")):
            load(folder)

    def test_what_the_real_package_writes(self, tmp_path):
        datasets = pytest.importorskip("datasets", reason="needs datasets (pip install datasets)")
        features = datasets.Features({"x": datasets.Array2D((2, 3), "float32"), "label": datasets.ClassLabel(names=["u", "v"])})
        X = np.arange(12, dtype=np.float32).reshape(2, 2, 3)
        datasets.Dataset.from_dict({"x": X.tolist(), "label": [1, 0]}, features=features).save_to_disk(tmp_path / "set")
        found = load(tmp_path / "set", shape=(2, 3))
        assert_array_equal(found.inputs, X)
        assert (found.labels.tolist(), found.class_names) == ([1, 0], ("u", "v"))


@pytest.mark.parametrize(
    ("columns", "options", "words"),
    [
        ({"t": ["a", "b"], "x": [1.0, 2.0]}, {}, ("column 't' holds string", "--feature-columns")),
        ({"x": [[1.0], [1.0, 2.0]]}, {}, ("lists of column 'x' differ in length",)),
        ({"x": [[1.0, None]]}, {}, ("none of the 1 selected samples can be used", "1 NaN")),
        ({"x": [[1.0]], "a": [1.0]}, {"feature_columns": ["x", "a"]}, ("columns 'x', 'a' hold list and numbers",)),
        ({"x": [1.0]}, {"label_column": "y"}, ("has no column 'y'", "'x'")),
        ({"x": pa.array([], pa.float64())}, {}, ("has no rows",)),
        ({"x": [1.0], "y": [2.0]}, {"shape": (3,)}, ("2 feature columns ('x', 'y')", "takes 3 numbers")),
        ({"label": [1]}, {"label_column": "label"}, ("no column beside the label",)),
    ],
)  # fmt: skip
def test_mistakes(parquet, columns, options, words, told):
    with pytest.raises(InputError, match=told("d.parquet", *words)):
        load(parquet(columns), **options)


@pytest.mark.parametrize("name", ["d.parquet", "d.arrow"])
@pytest.mark.parametrize(
    "content", [b"", b"PAR1", b"PAR1" + b"\xff" * 60 + b"PAR1", b"\xff\xff\xff\xff\x10\x00\x00\x00" + b"\x7f" * 40]
)
def test_damaged_files_are_one_line(tmp_path, name, content, told):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=told(name, "expected")):
        load(tmp_path / name)


def test_buffers_that_point_elsewhere_are_not_followed(tmp_path, told):
    """Arrow writes and reads them as they are; what follows them without a look leaves the process's memory."""
    offsets = pa.py_buffer(np.array([0, 2**30, 3], np.int32))
    words = pa.Array.from_buffers(pa.string(), 2, [None, offsets, pa.py_buffer(b"abcdef")])
    lists = pa.Array.from_buffers(pa.list_(pa.float64()), 2, [None, offsets], children=[pa.array([1.0, 2.0, 3.0])])
    for name, columns in (("a.arrow", {"x": [1.0, 2.0], "label": words}), ("b.arrow", {"x": lists})):
        with (
            pa.OSFile(str(tmp_path / name), "wb") as sink,
            pa.ipc.new_stream(sink, pa.schema([(k, pa.array(v).type) for k, v in columns.items()])) as writer,
        ):
            writer.write_batch(pa.record_batch(columns))
        with pytest.raises(InputError, match=told(name, "cannot be read", "Copy it again")):
            load(tmp_path / name)


def test_files_with_other_columns(parquet, tmp_path, told):
    parquet({"a": [1.0]}, "test-0.parquet")
    parquet({"b": [1.0]}, "test-1.parquet")
    with pytest.raises(InputError, match=told("different columns (a and b)", "Pass one file")):
        load(tmp_path)


@pytest.mark.slow
def test_no_damage_is_a_crash(parquet, told):
    """A byte changed anywhere: the file is read, or refused in one line."""
    path = parquet({"a": np.arange(30.0), "label": np.arange(30) % 2})
    whole, rng = bytearray(path.read_bytes()), np.random.default_rng(0)
    for at in rng.integers(0, len(whole), 120):
        broken = bytearray(whole)
        broken[at] ^= int(rng.integers(1, 256))
        path.write_bytes(broken)
        with suppress(InputError):
            assert len(load(path)) <= 30


def test_without_pyarrow(tmp_path, uninstalled, told):
    (tmp_path / "d.parquet").write_bytes(b"PAR1")
    uninstalled("pyarrow")
    with pytest.raises(InputError, match=told("pyarrow is not installed", "pip install 'onnxfim[tables]'")):
        load(tmp_path / "d.parquet")


@pytest.mark.parametrize("none", [None, "", "n/a", "NaN"])
def test_texts_that_stand_for_no_label(parquet, none):
    columns = {"a": [0.0, 1.0, 2.0], "b": [1.0, 2.0, 3.0]}
    numbers = load(parquet({**columns, "label": ["1", none, "2"]}))
    assert (numbers.labels.tolist(), numbers.class_names, [s.reason for s in numbers.skipped]) == ([1, 2], None, ["has no label"])
    words = load(parquet({**columns, "label": ["dog", none, "cat"]}))
    assert (words.labels.tolist(), words.class_names) == ([1, 0], ("cat", "dog"))
