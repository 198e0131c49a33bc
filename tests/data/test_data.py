"""Samples from arrays, files and folders: what comes out, and what each mistake is told."""

from __future__ import annotations

import hashlib
import inspect
import io
import os
import re
import sys
import zipfile
from contextlib import suppress

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from onnxfim.data import Preprocessing, Skipped, from_arrays, images, load, random_samples
from onnxfim.data import samples as samples_module
from onnxfim.data.arrays import gather
from onnxfim.data.converting import Target
from onnxfim.data.samples import Choice
from onnxfim.errors import InputError
from tests.support.places import DEV

SHAPE = (3, 4, 5)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def npz(tmp_path):
    def save(**arrays):
        path = tmp_path / "data.npz"
        np.savez_compressed(path, **arrays)
        return path

    return save


@pytest.fixture
def picture(tmp_path):
    """Save uint8 pixels as an image below the folder `images` and return that folder."""
    Image = DEV.load("PIL.Image")

    def save(name, pixels):
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
        return tmp_path / "images"

    return save


def told(*words):
    """Pattern of a one-line message that holds these words in this order."""
    return r"^[^\n]*" + r"[^\n]*".join(map(re.escape, words)) + r"[^\n]*$"


class TestArrays:
    @pytest.mark.parametrize("compressed", [True, False])
    def test_npz_gives_inputs_labels_and_provenance(self, tmp_path, rng, compressed):
        X, y = rng.random((7, *SHAPE)), np.arange(7, dtype=np.uint8)
        path = tmp_path / "data.npz"
        (np.savez_compressed if compressed else np.savez)(path, inputs=X, labels=y)
        got = load(path, shape=(3, None, None))
        assert_array_equal(got.inputs, X.astype(np.float32))
        assert_array_equal(got.labels, y)
        assert (got.inputs.dtype, got.labels.dtype) == (np.float32, np.int64)
        assert_array_equal(got.indices, range(7))
        assert (got.names, got.class_names, got.skipped, got.source) == (("",) * 7, None, (), str(path))
        assert not got.synthetic

    def test_npz_may_name_its_classes_and_features(self, npz, rng):
        X = rng.random((3, 2))
        path = npz(inputs=X, labels=["b", "a", "b"], class_names=["b", "c", "a"], feature_names=["age", "height"])
        got = load(path, shape=(2,))
        assert (got.labels.tolist(), got.class_names, got.classes_guessed) == ([0, 2, 0], ("b", "c", "a"), False)
        assert got.feature_names == ("age", "height")
        assert load(path, class_names=["a", "b"]).labels.tolist() == [1, 0, 1]
        other = load(npz(inputs=X, class_names=[1, 2], feature_names=["age"]))
        assert (other.class_names, other.feature_names) == (None, None)

    def test_npy_takes_labels_from_another_file(self, tmp_path, rng):
        X = rng.random((6, 4)).astype(np.float32)
        np.save(tmp_path / "x.npy", X)
        np.save(tmp_path / "y.npy", np.arange(6.0))
        got = load(tmp_path / "x.npy", shape=(4,), labels_path=tmp_path / "y.npy", limit=4)
        assert_array_equal(got.inputs, X[:4])
        assert_array_equal(got.labels, range(4))
        assert load(tmp_path / "x.npy").labels is None

    def test_keys_can_have_other_names(self, npz, rng):
        got = load(npz(X=rng.random((3, 2)), y=[2, 1, 0]), inputs_key="X", labels_key="y")
        assert_array_equal(got.labels, [2, 1, 0])

    @pytest.mark.parametrize("order", ["C", "F"])
    def test_selection_is_seeded_sorted_and_the_same_from_every_source(self, tmp_path, npz, rng, order):
        X = np.asarray(rng.random((50, 3, 2)), order=order)
        np.save(tmp_path / "x.npy", X)
        got = load(npz(inputs=X), limit=9, seed=3)
        assert len(got) == 9
        assert np.all(np.diff(got.indices) > 0)
        assert_array_equal(got.inputs, X[got.indices].astype(np.float32))
        assert got.indices[-1] > 8
        for twin in (load(tmp_path / "x.npy", limit=9, seed=3), from_arrays(X, limit=9, seed=3)):
            assert_array_equal(twin.inputs, got.inputs)
            assert twin.sha256 == got.sha256
        assert_array_equal(from_arrays(X, limit=9).indices, range(9))

    def test_hash_is_of_type_shape_and_bytes_of_the_selected_arrays(self):
        X, y = np.arange(6, dtype=np.float32).reshape(3, 2), np.arange(3)
        digest = hashlib.sha256(b"<f4(2, 2)" + X[:2].tobytes() + b"<i8(2,)" + y[:2].tobytes()).hexdigest()
        assert from_arrays(X, y, limit=2).sha256 == digest
        assert from_arrays(X, limit=2).sha256 != digest

    def test_rows_after_the_last_selected_one_are_not_read(self, tmp_path):
        path = tmp_path / "x.npy"
        np.save(path, np.ones((1000, 8)))
        with path.open("r+b") as file:
            file.seek(-8, os.SEEK_END)
            file.write(np.float64(np.nan).tobytes())
        assert load(path, limit=999).skipped == ()
        assert [s.index for s in load(path).skipped] == [999]

    def test_bad_samples_are_skipped_at_their_original_position(self):
        X = np.ones((40, 3))
        X[11, 1], X[29, :2] = np.nan, (np.inf, -np.inf)
        got = from_arrays(X, np.arange(40), seed=1, limit=40)
        assert got.skipped == (Skipped(11, "holds 1 NaN or infinite values"), Skipped(29, "holds 2 NaN or infinite values"))
        assert_array_equal(got.indices, np.delete(np.arange(40), [11, 29]))
        assert_array_equal(got.labels, got.indices)
        assert len(got) == len(got.names) == 38

    def test_values_that_overflow_the_model_are_skipped(self):
        X = np.array([[1.0], [np.nan], [1e6], [2.0]])
        got = from_arrays(X, dtype=np.float16)
        assert_array_equal(got.inputs, [[1], [2]])
        assert_array_equal(got.indices, [0, 3])
        assert [s.index for s in got.skipped] == [1, 2]
        assert got.skipped[1].reason == "has 1 values that overflow the model's float16"

    @pytest.mark.parametrize(
        "labels",
        [[0.0, 2.0, 1.0], [[0], [2], [1]], np.eye(3)[[0, 2, 1]], np.eye(3, dtype=bool)[[0, 2, 1]], np.uint64([0, 2, 1])],
    )
    def test_labels_come_as_indices_columns_or_one_hot(self, labels):
        assert_array_equal(from_arrays(np.ones((3, 2)), labels).labels, [0, 2, 1])

    @pytest.mark.parametrize(
        ("given", "dtype"), [(np.int64, np.float32), (np.uint8, np.int8), (np.float64, np.int32), (">f4", "f4")]
    )
    def test_casts_keep_the_numbers(self, given, dtype):
        X = np.array([[0, 1], [2, 100]], given)
        got = from_arrays(X, dtype=dtype).inputs
        assert_array_equal(got, X)
        assert got.dtype == dtype

    def test_inputs_are_copied_not_changed(self):
        X = np.ones((2, 3), np.float32)
        got = from_arrays(X)
        got.inputs[:] = 5
        assert_array_equal(X, 1)


class TestPreprocessing:
    MEAN, STD = (0.4, 0.5, 0.6), (0.1, 0.2, 0.4)

    def test_floats_are_normalised_as_they_are(self, rng):
        X = rng.random((4, *SHAPE))
        got = from_arrays(X, shape=SHAPE, preprocessing=Preprocessing(self.MEAN, self.STD)).inputs
        want = (X - np.reshape(self.MEAN, (3, 1, 1))) / np.reshape(self.STD, (3, 1, 1))
        assert_allclose(got, want, rtol=1e-6, atol=1e-6)  # one rounding to float32

    @pytest.mark.parametrize("input_range", [None, (0.0, 255.0), (-1.0, 1.0)])
    def test_pixels_are_mapped_to_the_range_first(self, rng, input_range):
        X = rng.integers(0, 256, (4, *SHAPE), np.uint8)
        low, high = input_range or (0, 1)
        got = from_arrays(X, preprocessing=Preprocessing((0.5,), (0.25,), input_range)).inputs
        assert_allclose(got, (low + X / 255 * (high - low) - 0.5) / 0.25, rtol=1e-6, atol=1e-6)  # one rounding to float32

    def test_pixels_stay_whole_numbers_without_preprocessing(self):
        X = np.arange(6, dtype=np.uint8).reshape(2, 3)
        assert_array_equal(from_arrays(X, preprocessing=Preprocessing(layout="NHWC")).inputs, X)

    @pytest.mark.parametrize(
        ("preprocessing", "pixels"),
        [
            (Preprocessing(MEAN, STD), False),
            (Preprocessing(MEAN, STD, (-1.0, 3.0)), True),
            (Preprocessing(None, None, (0.0, 255.0)), True),
            (Preprocessing(MEAN, None, None), False),
            (Preprocessing(None, (2.0,), (-1.0, 1.0), "NHWC"), True),
        ],
    )
    def test_scale_is_the_derivative_by_the_raw_input(self, rng, preprocessing, pixels):
        shape = (4, 5, 3) if preprocessing.layout == "NHWC" else SHAPE
        X = rng.integers(0, 255, (1, *shape), np.uint8) if pixels else rng.random((1, *shape))
        step = X + np.uint8(1) if pixels else X + 1 / 255
        before, after = (from_arrays(x, preprocessing=preprocessing, dtype=np.float64).inputs for x in (X, step))
        scale = preprocessing.scale(shape)
        got = np.ones(shape) if scale is None else np.broadcast_to(scale, shape)
        assert_allclose(got, (after - before)[0] * 255, rtol=1e-9)  # affine: the difference is exact up to float64 rounding

    def test_scale_is_none_where_the_units_are_the_same(self):
        assert Preprocessing(mean=(0.5,), input_range=(0.0, 1.0)).scale(SHAPE) is None
        assert Preprocessing().scale(SHAPE) is None

    def test_features_of_a_table_are_channels(self, rng):
        X = rng.random((5, 4))
        got = from_arrays(X, preprocessing=Preprocessing((1.0, 2.0, 3.0, 4.0), (1.0, 2.0, 4.0, 8.0))).inputs
        assert_allclose(got, (X - [1, 2, 3, 4]) / [1, 2, 4, 8], rtol=1e-6)  # one rounding to float32

    @pytest.mark.parametrize("shape", [(3, 6, 5), (3, None, None), (None, None, None), None])
    def test_layout_transposes_only_what_is_in_the_other_order(self, rng, shape):
        X = rng.random((2, 3, 6, 5)).astype(np.float32)
        preprocessing = Preprocessing(layout="NCHW")
        for given in (X, np.moveaxis(X, 1, 3)):
            got = from_arrays(given, shape=shape, preprocessing=preprocessing).inputs
            assert_array_equal(got, X)
            assert got.flags.c_contiguous

    def test_layout_nhwc_transposes_nchw_arrays(self, rng):
        X = rng.random((2, *SHAPE)).astype(np.float32)
        got = from_arrays(X, shape=(None, None, 3), preprocessing=Preprocessing(self.MEAN, self.STD, layout="NHWC")).inputs
        assert_allclose(got, (np.moveaxis(X, 1, 3) - np.array(self.MEAN)) / self.STD, rtol=1e-5, atol=1e-6)  # float32 inputs

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({"std": (0.1, 0.0)}, ("std: found 0.1, 0,", "above 0")),
            ({"std": (0.1, 1e-300)}, ("std: found 1e-300,", "expected 0 or 1e-30 to 1e+30", "Change the unit")),
            ({"input_range": (0.0, 1e300)}, ("input range: found 1e+300,", "expected 0 or 1e-30 to 1e+30", "Change the unit")),
            ({"mean": (float("nan"),)}, ("mean: found nan", "finite numbers")),
            ({"mean": ()}, ("mean: found nothing", "finite numbers")),
            ({"mean": (0.1, 0.2), "std": (1.0, 1.0, 1.0)}, ("found 2 and 3 numbers", "as many of each")),
            ({"input_range": (1.0, 0.0)}, ("input range: found 1, 0", "low and a higher")),
            ({"layout": "HWC"}, ("layout: found 'HWC'", "NCHW or NHWC")),
            ({"resize": 0}, ("resize: found 0", "at least 1 pixel")),
            ({"crop": (4, -1)}, ("crop: found (4, -1)", "at least 1 pixel")),
        ],
    )
    def test_values_that_cannot_be_used(self, options, words):
        with pytest.raises(InputError, match=told(*words)):
            Preprocessing(**options)

    @pytest.mark.parametrize(
        ("shape", "preprocessing", "words"),
        [
            (
                (1, 4, 5),
                Preprocessing(mean=MEAN),
                ("mean: found 3 numbers", "(1, 4, 5)", "no channel axis of that size", "--layout"),
            ),
            ((3, 4, 3), Preprocessing(std=STD), ("std: found 3 numbers", "more than one axis", "--layout")),
            (SHAPE, Preprocessing(input_range=(2.0, 3.0)), ("inputs: values run from", "says 2 to 3", "--input-range")),
            (SHAPE, Preprocessing(resize=4), ("inputs: is an array", "Resize before")),
        ],
    )
    def test_preprocessing_that_does_not_fit_the_data(self, rng, shape, preprocessing, words):
        with pytest.raises(InputError, match=told(*words)):
            from_arrays(rng.random((2, *shape)), preprocessing=preprocessing)

    def test_integer_input_takes_no_normalisation(self):
        with pytest.raises(InputError, match=told("its input takes int64", "Leave these out")):
            from_arrays(np.ones((2, 3)), dtype=np.int64, preprocessing=Preprocessing(mean=(1.0,)))


class TestMistakesInArrays:
    @pytest.mark.parametrize(
        ("given", "shape", "words"),
        [
            ((3, 4, 5), SHAPE, ("(4, 5)", "model takes (3, 4, 5)", "without a batch axis: save x[None]")),
            ((7, 4, 5), (1, 4, 5), ("channel axis is missing: save x[:, None]",)),
            ((7, 4, 5), (4, 5, 1), ("channel axis is missing: save x[..., None]",)),
            ((7, 4, 5, 3), SHAPE, ("(4, 5, 3)", "pass --layout NCHW")),
            ((7, 3, 4, 5), (None, 5, 3), ("(3, 4, 5)", "model takes (?, 5, 3)", "pass --layout NHWC")),
            ((7, 60), SHAPE, ("(60,)", "save x.reshape(-1, 3, 4, 5)")),
            ((7, 3, 4, 5), (60,), ("model takes (60,)", "save x.reshape(-1, 60)")),
            ((7, 3, 9, 9), (3, None, 5), ("(3, 9, 9)", "Pass an array of shape (N, 3, ?, 5)")),
        ],
    )
    def test_wrong_shape(self, given, shape, words):
        with pytest.raises(InputError, match=told("inputs: samples have shape", *words)):
            from_arrays(np.ones(given), shape=shape)

    @pytest.mark.parametrize(
        ("inputs", "words"),
        [
            (np.ones((2, 3), complex), ("holds complex numbers (complex128)", "real numbers")),
            (np.array([["a"], ["b"]]), ("holds text (<U1)", "real numbers")),
            (np.ones((2, 3), bool), ("holds true and false (bool)", "real numbers")),
            (np.ones((2, 3), object), ("holds no numbers (object)", "real numbers")),
            (np.ones((2, 3), [("a", "f4")]), ("holds records", "real numbers")),
            ([[1.0], [1.0, 2.0]], ("rows differ in shape", "rectangular")),
            (5.0, ("is a single number", "(N, …)")),
            (np.ones((0, 3)), ("is empty, shape (0, 3)", "at least one sample")),
            (np.ones((3, 0)), ("is empty, shape (3, 0)", "at least one sample")),
            (np.full((3, 2), np.nan), ("none of the 3 selected samples", "the first, 0: holds 2 NaN", "Repair")),
            (np.array([[2**24 + 1]]), ("whole numbers up to 16777217", "float32 is exact only to 16777216")),
        ],
    )
    def test_inputs_that_are_not_samples(self, inputs, words):
        with pytest.raises(InputError, match=told("inputs", *words)):
            from_arrays(inputs)

    @pytest.mark.parametrize("inputs", [[[0.5]], [[300.0]], [[-1]]])
    def test_integer_input_takes_whole_numbers_in_its_range(self, inputs):
        with pytest.raises(InputError, match=told("model takes uint8", "whole numbers from 0 to 255")):
            from_arrays(inputs, dtype=np.uint8)

    @pytest.mark.parametrize("dtype", [bool, "U4", complex])
    def test_model_input_must_be_numeric(self, dtype):
        with pytest.raises(InputError, match=told("model: its input takes", "numeric input")):
            from_arrays([[1.0]], dtype=dtype)

    @pytest.mark.parametrize(
        ("labels", "words"),
        [
            ([0, 1], ("shape (2,)", "each of the 3 samples", "(3,)")),
            (np.zeros((3, 2, 2)), ("shape (3, 2, 2)", "each of the 3 samples")),
            ([0, 1, -1], ("label -1 of sample 2", "whole numbers from 0")),
            ([0, 1.5, 1], ("label 1.5 of sample 1", "whole numbers from 0")),
            ([0, np.nan, 1], ("label nan of sample 1", "whole numbers from 0")),
            (["0.5", "1", "1"], ("label 0.5 of sample 0", "Number the classes")),
            ([True, False, True], ("labels are true and false", "Number the classes")),
            ([[0.2, 0.8], [1, 0], [1, 0]], ("shape (N, 2), not one-hot", "argmax")),
            ([[1, 1], [1, 0], [1, 0]], ("shape (N, 2), not one-hot", "argmax")),
        ],
    )
    def test_labels(self, labels, words):
        with pytest.raises(InputError, match=told("labels", *words)):
            from_arrays(np.ones((3, 2)), labels)

    @pytest.mark.parametrize(
        ("options", "words"), [({"limit": 0}, ("limit: found 0", "at least 1")), ({"seed": -1}, ("seed: found -1",))]
    )
    def test_selection(self, options, words):
        with pytest.raises(InputError, match=told(*words)):
            from_arrays(np.ones((3, 2)), **options)


class TestMistakesInFiles:
    def test_missing_and_unknown(self, tmp_path):
        with pytest.raises(InputError, match=told("none.npz: no such file or folder", "Check the path")):
            load(tmp_path / "none.npz")
        (tmp_path / "data.xls").write_text("1,2")
        with pytest.raises(
            InputError, match=told("data.xls: has the suffix '.xls'", ".npz, .npy, .csv, .parquet or .tar", "numpy.savez")
        ):
            load(tmp_path / "data.xls")

    @pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes")
    def test_a_pipe_is_not_waited_for(self, tmp_path):
        os.mkfifo(tmp_path / "x.npy")
        with pytest.raises(InputError, match=told("x.npy: is neither a file nor a folder")):
            load(tmp_path / "x.npy")

    @pytest.mark.parametrize("ends", [b"\n", b"\r\n"])
    def test_git_lfs_pointers_are_recognised(self, tmp_path, npz, ends):
        pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12\n".replace(b"\n", ends)
        for name in ("x.npz", "x.npy", "y.npy"):
            (tmp_path / name).write_bytes(pointer)
        good = npz(inputs=np.ones((2, 3)))
        for path, labels, name in (("x.npz", None, "x.npz"), ("x.npy", None, "x.npy"), (good, "y.npy", "y.npy")):
            with pytest.raises(InputError, match=told(f"{name}: is a Git LFS pointer", "Fetch it with git lfs pull")):
                load(tmp_path / path, labels_path=labels and tmp_path / labels)

    @pytest.mark.filterwarnings("ignore:Duplicate name")
    def test_two_arrays_of_one_name_are_refused(self, tmp_path):
        with zipfile.ZipFile(tmp_path / "x.npz", "w") as file:
            for value in (1.0, 2.0):
                array = io.BytesIO()
                np.save(array, np.full((2, 3), value))
                file.writestr("inputs.npy", array.getvalue())
        with pytest.raises(InputError, match=told("x.npz: holds 2 arrays called 'inputs', expected one", "numpy.savez")):
            load(tmp_path / "x.npz")

    @pytest.mark.parametrize("count", [2**62, 2**63 - 1, 2**64 - 1, 10**30])
    def test_more_samples_than_can_be_counted(self, count):
        class Endless:
            where, shape, dtype = "x.npy", (count, 3), np.dtype(np.float32)

        with pytest.raises(InputError, match=told("x.npy: the selected samples take", "--samples")):
            gather(Endless(), None, Target(None, np.dtype(np.float32), Preprocessing()), Choice(), source="x.npy")

    def test_missing_key_names_the_nearest(self, npz):
        path = npz(x_test=np.ones((2, 3)), input=np.ones((2, 3)))
        with pytest.raises(InputError, match=told("has no array 'inputs'", "'x_test', 'input'", "Pass --inputs-key 'input'")):
            load(path)
        with pytest.raises(InputError, match=told("has no array 'y'", "Pass --labels-key 'x_test'")):
            load(path, inputs_key="input", labels_key="y")

    def test_archive_without_arrays(self, tmp_path):
        with zipfile.ZipFile(tmp_path / "x.npz", "w") as file:
            file.writestr("readme.txt", "hello")
        with pytest.raises(InputError, match=told("has no array 'inputs'", "it holds none", "numpy.savez")):
            load(tmp_path / "x.npz")

    @pytest.mark.parametrize("suffix", [".npz", ".npy"])
    def test_objects_are_never_unpickled(self, tmp_path, suffix):
        class Trap:
            def __reduce__(self):
                return os.mkdir, (str(tmp_path / "sprung"),)

        path = tmp_path / f"x{suffix}"
        traps = np.array([Trap(), Trap()], object)
        np.savez(path, inputs=traps) if suffix == ".npz" else np.save(path, traps)
        with pytest.raises(InputError, match=told("holds Python objects", "never unpickled", "numpy.stack")):
            load(path)
        assert not (tmp_path / "sprung").exists()

    def test_truncated_at_any_byte(self, tmp_path, npz, rng):
        whole = npz(inputs=rng.random((5, 3)), labels=np.arange(5))
        plain = tmp_path / "plain.npy"
        np.save(plain, rng.random((5, 3)))
        for path in (whole, plain):
            content = path.read_bytes()
            cut = tmp_path / f"cut{path.suffix}"
            for length in range(len(content)):
                cut.write_bytes(content[:length])
                with pytest.raises(InputError, match=told("cut", ". Copy")):
                    load(cut)

    def test_one_damaged_byte_gives_samples_or_one_line(self, tmp_path, npz, rng):
        content = npz(inputs=rng.random((4, 3)), labels=np.arange(4)).read_bytes()
        path = tmp_path / "bad.npz"
        for position in range(len(content)):
            path.write_bytes(content[:position] + bytes([content[position] ^ 0x41]) + content[position + 1 :])
            with suppress(InputError):  # any other exception fails the test
                assert len(load(path)) > 0

    def test_header_is_held_against_the_size(self, tmp_path):
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (10**12, 3, 224, 224)})
        (tmp_path / "x.npy").write_bytes(header.getvalue())
        with zipfile.ZipFile(tmp_path / "x.npz", "w") as file:
            file.writestr("inputs.npy", header.getvalue())
        for name in ("x.npy", "x.npz"):
            with pytest.raises(InputError, match=told("is truncated or damaged, found 128 bytes")):
                load(tmp_path / name)

    def test_selection_beyond_memory_is_refused_before_reading(self, npz, monkeypatch):
        path = npz(inputs=np.zeros((1000, 100), np.float32))
        monkeypatch.setattr(samples_module, "MAX_BYTES", 100_000)
        assert len(load(path, limit=250)) == 250
        with pytest.raises(InputError, match=told("data.npz[inputs]: the selected samples take", "--samples")):
            load(path, limit=251)

    def test_memory_that_runs_out_is_one_line(self, npz, monkeypatch):
        path = npz(inputs=np.zeros((2, 2)))
        monkeypatch.setattr("onnxfim.data.npy.np.empty", lambda *_: (_ for _ in ()).throw(MemoryError))
        with pytest.raises(InputError, match=told("does not fit in memory", "--samples")):
            load(path)

    def test_labels_path(self, tmp_path, npz):
        path = npz(inputs=np.ones((2, 3)))
        with pytest.raises(InputError, match=told("y.npy: no such file")):
            load(path, labels_path=tmp_path / "y.npy")
        with pytest.raises(InputError, match=told("data.npz: is no .npy file", "numpy.save")):
            load(path, labels_path=path)
        with pytest.raises(InputError, match=told("is a folder of images", "Pass a .csv file")):
            load(tmp_path, labels_path=path)


class TestImages:
    def pixels(self, rng, *shape):
        return rng.integers(0, 256, shape, np.uint8)

    def test_class_folders_give_labels_and_names(self, picture, rng):
        wanted = {name: self.pixels(rng, 4, 5, 3) for name in ("dog/1.png", "cat/b.png", "cat/a.png", "dog/sub/0.png")}
        for name, pixels in wanted.items():
            folder = picture(name, pixels)
        (folder / "cat" / "notes.txt").write_text("not an image")
        (folder / "bird").mkdir()
        (folder / ".cache").mkdir()
        got = load(folder, shape=SHAPE)
        assert got.names == ("cat/a.png", "cat/b.png", "dog/1.png", "dog/sub/0.png")
        assert got.class_names == ("bird", "cat", "dog")
        assert_array_equal(got.labels, [1, 1, 2, 2])
        assert_allclose(got.inputs, [np.moveaxis(wanted[name], 2, 0) / 255 for name in got.names], rtol=1e-6)  # float32
        assert got.source == f"{folder}: 4 of 4 images"

    def test_flat_folder_has_no_labels(self, picture, rng):
        folder = picture("a.png", self.pixels(rng, 4, 5))
        got = load(folder, shape=(1, 4, 5))
        assert (got.labels, got.class_names, got.inputs.shape) == (None, None, (1, 1, 4, 5))

    @pytest.mark.parametrize(
        ("shape", "layout", "dtype"), [((6, 5, 3), None, "f4"), ((None, None, None), "NHWC", "f2"), ((6, 5, 3), None, "u1")]
    )
    def test_channels_last(self, picture, rng, shape, layout, dtype):
        pixels = self.pixels(rng, 6, 5, 3)
        got = load(picture("a.png", pixels), shape=shape, dtype=dtype, preprocessing=Preprocessing(layout=layout)).inputs
        assert got.dtype == dtype
        assert_allclose(got[0], pixels if dtype == "u1" else pixels / 255, rtol=1e-3)  # float16 rounding

    def test_model_without_channel_axis_takes_grey_pixels(self, picture, rng):
        pixels = self.pixels(rng, 4, 5)
        assert_allclose(load(picture("a.png", pixels), shape=(4, 5)).inputs[0], pixels / 255, rtol=1e-6)  # float32

    def test_range_mean_and_std(self, picture, rng):
        pixels = self.pixels(rng, 4, 5, 3)
        preprocessing = Preprocessing((1.0, 2.0, 3.0), (2.0, 3.0, 4.0), (0.0, 255.0))
        got = load(picture("a.png", pixels), shape=SHAPE, preprocessing=preprocessing).inputs[0]
        assert_allclose(got, np.moveaxis((pixels - np.array([1.0, 2, 3])) / [2, 3, 4], 2, 0), rtol=1e-6)  # float32

    def test_resize_keeps_the_aspect_and_crop_takes_the_middle(self, picture, rng):
        pixels = np.repeat(np.repeat(self.pixels(rng, 4, 8), 4, axis=0), 4, axis=1)
        folder = picture("a.png", pixels)
        cut = load(folder, shape=(8, 8), preprocessing=Preprocessing(crop=8)).inputs[0]
        assert_allclose(cut, pixels[4:12, 12:20] / 255, rtol=1e-6)  # float32
        assert load(folder, shape=(8, None), preprocessing=Preprocessing(resize=8)).inputs.shape == (1, 8, 16)
        assert load(folder, shape=(8, 8), preprocessing=Preprocessing(resize=8, crop=8)).inputs.shape == (1, 8, 8)
        assert load(folder, shape=(8, 6), preprocessing=Preprocessing(resize=(8, 6))).inputs.shape == (1, 8, 6)

    def test_limit_draws_over_the_classes_and_opens_only_these(self, picture, rng, monkeypatch):
        for label in range(4):
            for i in range(10):
                folder = picture(f"{label}/{i}.png", self.pixels(rng, 2, 2))
        from onnxfim.data import images

        opened = []
        monkeypatch.setattr(images, "_read", lambda file, folder: opened.append(file) or file.read_bytes())
        got = load(folder, shape=(2, 2), limit=12)
        assert len(opened) == len(got) == 12
        assert len(set(got.labels.tolist())) == 4
        assert np.all(np.diff(got.indices) > 0)
        assert got.names == tuple(f"{i // 10}/{i % 10}.png" for i in got.indices)
        twin, other = load(folder, shape=(2, 2), limit=12, seed=0), load(folder, shape=(2, 2), limit=12, seed=1)
        assert twin.sha256 == got.sha256 != other.sha256

    def test_files_that_cannot_be_decoded_are_skipped(self, picture, rng):
        folder = picture("c/a.png", self.pixels(rng, 4, 5, 3))
        picture("c/c.png", rng.integers(0, 60000, (4, 5)).astype(np.uint16))
        (folder / "c" / "b.jpg").write_bytes(b"not an image")
        (folder / "c" / "d.png").write_bytes((folder / "c" / "a.png").read_bytes()[:60])
        (folder / "c" / "e.png").mkdir()
        got = load(folder, shape=SHAPE)
        assert got.names == ("c/a.png",)
        assert [s.index for s in got.skipped] == [1, 2, 3]
        assert re.match(told("c/b.jpg cannot be decoded (cannot identify"), got.skipped[0].reason)
        assert re.match(told("c/c.png cannot be decoded", "more than 8 bits"), got.skipped[1].reason)
        assert re.match(told("c/d.png cannot be decoded"), got.skipped[2].reason)

    def test_a_git_lfs_pointer_among_images_is_skipped(self, picture, rng):
        folder = picture("a.png", rng.integers(0, 256, (4, 5), np.uint8))
        (folder / "b.png").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12\n")
        got = load(folder, shape=(1, 4, 5))
        (skipped,) = got.skipped
        assert (len(got), skipped.index) == (1, 1)
        assert re.match(told("b.png cannot be decoded", "is a Git LFS pointer", "git lfs pull"), skipped.reason)

    def test_names_that_are_no_text(self, picture, rng):
        folder = picture("0/a.png", rng.integers(0, 256, (4, 5), np.uint8))
        os.rename(os.path.join(os.fsencode(folder), b"0"), os.path.join(os.fsencode(folder), b"caf\xe9"))
        got = load(folder, shape=(1, 4, 5))
        assert (got.names, got.class_names) == (("caf\ufffd/a.png",), ("caf\ufffd",))

    def test_folders_deeper_than_the_stack(self, picture, rng):
        folder = picture("0/a.png", rng.integers(0, 256, (4, 5), np.uint8))
        deep = folder / "0" / "/".join("d" * 120)
        deep.mkdir(parents=True)
        (folder / "0" / "a.png").rename(deep / "b.png")
        limit = sys.getrecursionlimit()
        sys.setrecursionlimit(len(inspect.stack(0)) + 90)
        try:
            listed = images.images_below(folder / "0")
        finally:
            sys.setrecursionlimit(limit)
        assert listed == [deep / "b.png"]

    @pytest.mark.parametrize("limit", [40, 400])
    def test_pixel_bombs_are_skipped(self, picture, rng, monkeypatch, limit):  # Pillow raises from twice the limit, warns from it
        picture("b.png", self.pixels(rng, 30, 30))
        folder = picture("a.png", self.pixels(rng, 4, 5))
        monkeypatch.setattr("PIL.Image.MAX_IMAGE_PIXELS", limit)
        got = load(folder, shape=(4, 5))
        assert [s.index for s in got.skipped] == [1]
        assert "decompression bomb" in got.skipped[0].reason

    def test_a_thin_image_cannot_be_resized_to_a_bomb(self, picture, rng):
        picture("b.png", self.pixels(rng, 1, 3000))
        folder = picture("a.png", self.pixels(rng, 4, 5))
        got = load(folder, shape=(256, 256), preprocessing=Preprocessing(resize=256, crop=256))
        assert "resized it would have 256 × 768000 pixels" in got.skipped[0].reason

    def test_links_out_of_the_folder_are_not_followed(self, picture, rng, tmp_path):
        folder = picture("a/1.png", self.pixels(rng, 4, 5))
        (folder / "a" / "1.png").rename(tmp_path / "secret.png")
        picture("a/0.png", self.pixels(rng, 4, 5))
        (folder / "a" / "1.png").symlink_to(tmp_path / "secret.png")
        got = load(folder, shape=(4, 5))
        assert got.names == ("a/0.png",)
        assert "a link that leads out of the folder" in got.skipped[0].reason
        (folder / "b").symlink_to(tmp_path)
        with pytest.raises(InputError, match=told("b: is a link to a folder", "Copy the folder in")):
            load(folder, shape=(4, 5))

    @pytest.mark.parametrize(
        ("shape", "options", "words"),
        [
            (SHAPE, {}, ("a.png: the image is 8 × 9", "model takes 4 × 5", "--resize and --crop")),
            ((None, None), {}, ("b.png: gives a sample of shape (9, 9)", "first image gave (8, 9)", "--resize")),
            ((3, 8, 8), {"crop": 20}, ("a.png: the image is 8 × 9", "crop's 20 × 20", "larger --resize")),
            ((64,), {}, ("the model takes samples of shape (64,)", ".npz file")),
            ((None, None, None), {}, ("does not show the channel axis", "--layout")),
            ((2, 8, 9), {"layout": "NCHW"}, ("1, 3 or 4 channels", "takes 2 in layout NCHW")),
        ],
    )
    def test_images_that_do_not_fit_the_model(self, picture, rng, shape, options, words):
        picture("b.png", self.pixels(rng, 9, 9))
        folder = picture("a.png", self.pixels(rng, 8, 9))
        with pytest.raises(InputError, match=told("images", *words)):
            load(folder, shape=shape, preprocessing=Preprocessing(**options))

    def test_folders_that_hold_no_data(self, picture, rng, tmp_path):
        (tmp_path / "empty").mkdir()
        with pytest.raises(InputError, match=told("empty: holds no image", ".jpg")):
            load(tmp_path / "empty")
        picture("a/1.png", self.pixels(rng, 2, 2))
        with pytest.raises(InputError, match=told("holds images (0.png, …) beside class folders (a, …)", "one of the two")):
            load(picture("0.png", self.pixels(rng, 2, 2)), shape=(2, 2))
        (tmp_path / "bad").mkdir()
        (tmp_path / "bad" / "x.png").write_bytes(b"")
        with pytest.raises(InputError, match=told("none of the 1 selected samples", "the first, 0: x.png cannot be decoded")):
            load(tmp_path / "bad", shape=(2, 2))

    def test_without_pillow(self, picture, rng, monkeypatch):
        folder = picture("a.png", self.pixels(rng, 2, 2))
        monkeypatch.setitem(__import__("sys").modules, "PIL", None)
        with pytest.raises(InputError, match=told("Pillow is not installed", "pip install 'onnxfim[images]'")):
            load(folder, shape=(2, 2))


class TestSynthetic:
    @pytest.mark.parametrize(("distribution", "mean", "var"), [("uniform", 0.5, 1 / 12), ("normal", 0, 1)])
    def test_samples_follow_the_distribution_and_say_so(self, distribution, mean, var):
        got = random_samples((3, 50, 50), 4, seed=1, distribution=distribution)
        assert got.synthetic
        assert re.match(r"synthetic, (uniform in \[0, 1\]|standard normal), seed 1: describes no real input$", got.source)
        assert_allclose(got.inputs.mean(), mean, atol=0.03)  # 30,000 draws: sd of the mean at most 0.006
        assert_allclose(got.inputs.var(), var, rtol=0.05)  # sd of the variance at most 0.8 %
        assert got.inputs.dtype == np.float32

    def test_a_sample_depends_on_seed_and_position_alone(self):
        few, many = random_samples((4,), 2, seed=7), random_samples((4,), 5, seed=7)
        assert_array_equal(few.inputs, many.inputs[:2])
        assert not np.array_equal(many.inputs[0], many.inputs[1])
        assert few.sha256 == random_samples((4,), 2, seed=7).sha256 != random_samples((4,), 2, seed=8).sha256

    @pytest.mark.parametrize(
        ("shape", "count", "dtype", "words"),
        [
            ((3, None), 2, "f4", ("shape (3, ?)", "a size for each axis")),
            ((3,), 0, "f4", ("limit: found 0",)),
            ((3,), 2, "i8", ("takes int64", "floating-point", "real data")),
            ((10**6, 10**6), 2, "f4", ("synthetic samples: the selected samples take 7450.6 GiB", "--samples")),
        ],
    )
    def test_what_cannot_be_drawn(self, shape, count, dtype, words):
        with pytest.raises(InputError, match=told(*words)):
            random_samples(shape, count, seed=0, dtype=dtype)
