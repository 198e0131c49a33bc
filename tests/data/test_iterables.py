"""Whatever gives samples one after another: batches, single samples, dicts, tensors."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from onnxfim.data import Preprocessing, from_arrays, from_steps
from onnxfim.data.iterables import as_array, is_whole
from onnxfim.errors import InputError
from tests.support.places import TORCH

X = np.arange(24, dtype=np.float32).reshape(6, 1, 2, 2)
Y = np.array([0, 1, 2, 0, 1, 2])
SHAPE = (1, 2, 2)
TWIN = from_arrays(X, Y)


class Tensor:
    """A tensor that wants its gradient asked off and its device left before it gives numbers, as torch's."""

    def __init__(self, values, where="device", gradient=True):
        self.values, self.where, self.gradient = values, where, gradient

    def detach(self):
        return Tensor(self.values, self.where, False)

    def cpu(self):
        return Tensor(self.values, "cpu", self.gradient)

    def numpy(self):
        if self.gradient or self.where != "cpu":
            raise RuntimeError("not yet")
        return self.values


class Indexed:
    """A data set with items and a length alone."""

    classes = ("a", "b", "c")

    def __len__(self):
        return len(X)

    def __getitem__(self, i):
        return X[i], int(Y[i])


class Loader:
    """What is gone through in batches, and knows its data set."""

    batch_size = 4
    dataset = Indexed()

    def __iter__(self):
        yield from ((Tensor(X[i : i + 4]), Tensor(Y[i : i + 4])) for i in (0, 4))


@pytest.mark.parametrize(
    "steps",
    [
        lambda: [(X[:4], Y[:4]), (X[4:], Y[4:])],
        lambda: [[X[:4], Y[:4]], [X[4:], Y[4:]]],
        lambda: ((x, y) for x, y in zip(X, Y, strict=True)),
        lambda: ((x, int(y)) for x, y in zip(X, Y, strict=True)),
        lambda: ((x, np.eye(3)[y]) for x, y in zip(X, Y, strict=True)),
        lambda: ((Tensor(x), Tensor(y)) for x, y in zip(X, Y, strict=True)),
        lambda: [{"inputs": X, "labels": Y}],
        lambda: ({"image": x, "label": y, "id": "a"} for x, y in zip(X, Y, strict=True)),
        lambda: [{"x0": X, "y": Y, "other": 1}],
        lambda: ((x.tolist(), int(y)) for x, y in zip(X, Y, strict=True)),
        Indexed,
        Loader,
    ],
    ids=["batches", "lists", "pairs", "numbers", "one-hot", "tensors", "dict", "dicts", "by name", "written out", "indexed", "loader"],
)  # fmt: skip
def test_all_give_the_same_samples(steps):
    found = from_steps(steps(), shape=SHAPE, input_name="x0")
    assert_array_equal(found.inputs, X)
    assert_array_equal(found.labels, Y)


@pytest.mark.parametrize("steps", [lambda: [(X[:4], Y[:4]), (X[4:], Y[4:])], lambda: zip(X, Y, strict=True), Indexed, Loader])
def test_the_hash_is_that_of_the_arrays(steps):
    assert from_steps(steps(), shape=SHAPE).sha256 == TWIN.sha256


@pytest.mark.parametrize(
    ("steps", "count"),
    [(lambda: [X[:4], X[4:]], 6), (lambda: iter(X), 6), (lambda: ((x,) for x in X), 6), (lambda: (x.tolist() for x in X), 6)],
)
def test_samples_alone(steps, count):
    found = from_steps(steps(), shape=SHAPE)
    assert (len(found), found.labels) == (count, None)
    assert_array_equal(found.inputs, X)


@pytest.mark.parametrize("source", [Loader, Indexed])
def test_names_that_a_data_set_tells(source):
    assert from_steps(source(), shape=SHAPE).class_names == ("a", "b", "c")


def test_without_a_shape_the_labels_tell_what_is_a_batch():
    assert len(from_steps([(X, Y)])) == 6
    assert len(from_steps(zip(X, Y, strict=True))) == 6
    assert len(from_steps(Loader())) == 6


def test_no_more_is_taken_than_is_asked_for():
    taken = []

    def endless():
        while True:
            taken.append(1)
            yield X[:4], Y[:4]

    found = from_steps(endless(), shape=SHAPE, limit=6)
    assert_array_equal(found.inputs, X[[0, 1, 2, 3, 0, 1]])
    assert len(taken) == 2


def test_too_much_is_refused(monkeypatch, told):
    monkeypatch.setattr("onnxfim.data.samples.MAX_BYTES", 1000)
    with pytest.raises(InputError, match=told("a generator in memory", "expected at most", "--samples")):
        from_steps((x for _ in range(100) for x in X), shape=SHAPE)


def test_words_are_labels():
    found = from_steps([(X[:2], ["cat", "ant"]), (X[2:4], ["cat", "bee"])], shape=SHAPE)
    assert (found.labels.tolist(), found.class_names, found.classes_guessed) == ([2, 0, 2, 1], ("ant", "bee", "cat"), True)


def test_values_of_other_inputs_come_along():
    steps = [
        {"input_ids": X[:4], "mask": np.ones((4, 3)), "labels": Y[:4]},
        {"input_ids": X[4:], "mask": np.zeros((2, 3)), "labels": Y[4:]},
    ]
    found = from_steps(steps, shape=SHAPE, input_name="input_ids", held=("mask", "none"))
    assert_array_equal(found.held["mask"].sum(axis=1), [3, 3, 3, 3, 0, 0])
    single = from_steps(({"input_ids": x, "mask": np.arange(3)} for x in X), shape=SHAPE, input_name="input_ids", held=("mask",))
    assert single.held["mask"].shape == (6, 3)


def test_preprocessing_and_bad_samples_are_those_of_arrays():
    bad = X.copy()
    bad[2, 0, 0, 0] = np.nan
    scaled = Preprocessing(mean=(1.0,), std=(2.0,))
    found, twin = from_steps([bad], shape=SHAPE, preprocessing=scaled), from_arrays(bad, preprocessing=scaled)
    assert_array_equal(found.inputs, twin.inputs)
    assert found.skipped == twin.skipped != ()


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        ([], ("gave nothing", "gone through before is empty")),
        ([(X, Y, Y)], ("step 0", "a tuple of 3, expected x or (x, y)")),
        ([(X, Y[:3])], ("has 6 samples and labels of shape (3,)",)),
        ([(X, Y), X], ("step 1", "other things than step 0")),
        ([X, X[:, :, :1]], ("step 1", "shape (1, 1, 2), but step 0 gave (1, 2, 2)")),
        ([{"a": X, "b": X}], ("is a dict of 'a', 'b'", "the model's input")),
        ([object()], ("expected numbers in one shape|without numbers",)),
        ([(X, {"a": 1})], ("",)),
        (["abc"], ("text",)),
    ],
)
def test_mistakes(steps, words):
    import re

    with pytest.raises(InputError) as caught:
        from_steps(steps, shape=SHAPE)
    assert "\n" not in str(caught.value)
    for word in words:
        assert re.search(word if "|" in word else re.escape(word), str(caught.value))


@pytest.mark.parametrize(
    ("value", "whole"),
    [(X, True), ([[1.0, 2.0]], True), ([1, 2], True), ([X, X], True), ([(X, Y)], False), ([{"x": X}], False), (iter(X), False), (Loader(), False),
     ([Tensor(X)], False), ([(1.0, 2.0, 3.0)], True)],
)  # fmt: skip
def test_what_is_all_samples_at_once(value, whole):
    assert is_whole(value) == whole


def test_a_frame_names_its_features():
    pandas = pytest.importorskip("pandas", reason="needs pandas (pip install '.[dev]')")
    frame = pandas.DataFrame({"a": [1.0, 2.0], "b": [3.0, 4.0]})
    found = from_arrays(frame, pandas.Series(["x", "y"]))
    assert (found.feature_names, found.labels.tolist(), found.class_names) == (("a", "b"), [0, 1], ("x", "y"))
    assert found.sha256 == from_arrays(frame.to_numpy(), [0, 1]).sha256


def test_torch_gives_its_own_numbers():
    torch = TORCH.load("torch")
    loader = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(torch.tensor(X).requires_grad_(), torch.tensor(Y)), batch_size=4
    )
    assert from_steps(loader, shape=SHAPE).sha256 == TWIN.sha256
    assert_array_equal(as_array(torch.tensor([1.5, 2.5], dtype=torch.bfloat16)), [1.5, 2.5])
