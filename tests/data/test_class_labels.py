"""Labels as class indices: whose order counts, and what is told where nobody gives one."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from onnxfim.data import from_arrays, load
from onnxfim.data.class_labels import ClassOrder, alphabetical, class_labels, class_order, in_order_of
from onnxfim.errors import InputError

X = np.ones((3, 2))


def labelled(labels, order=None):
    return class_labels("y", np.asarray(labels), np.arange(len(labels)), order)


def test_words_are_numbered_as_the_alphabet_has_them_and_it_is_told():
    found = from_arrays(X, ["cat", "ant", "cat"])
    assert_array_equal(found.labels, [1, 0, 1])
    assert (found.class_names, found.classes_guessed) == (("ant", "cat"), True)


def test_a_given_order_counts():
    found = from_arrays(X, ["cat", "ant", "cat"], class_names=["cat", "bee", "ant"])
    assert_array_equal(found.labels, [0, 2, 0])
    assert (found.class_names, found.classes_guessed) == (("cat", "bee", "ant"), False)


def test_words_are_hashed_as_the_classes_that_they_are():
    order = ["cat", "ant"]
    by_word = from_arrays(X, ["cat", "ant", "cat"], class_names=order)
    assert by_word.sha256 == from_arrays(X, [0, 1, 0]).sha256
    assert by_word.sha256 != from_arrays(X, ["cat", "ant", "cat"]).sha256


def test_the_guess_is_of_all_labels_whatever_part_is_taken(tmp_path):
    np.savez(tmp_path / "d.npz", inputs=np.ones((4, 2)), labels=np.array(["c", "b", "c", "a"]))
    assert_array_equal(load(tmp_path / "d.npz", limit=2).labels, [2, 1])


@pytest.mark.parametrize("labels", [["0", "2", "1"], ["0", "2.0", "1"], [0, 2, 1], [0.0, 2.0, 1.0]])
def test_numbers_stay_numbers(labels):
    found = labelled(labels)
    assert_array_equal(found.indices, [0, 2, 1])
    assert found.order is None


def test_numbers_that_are_names_are_looked_up():
    assert_array_equal(labelled(["-1", "1", "-1"], ClassOrder(("1", "-1"))).indices, [1, 0, 1])


def test_names_of_numbered_classes(told):
    assert labelled([0, 1, 1], ClassOrder(("a", "b"))).order.names == ("a", "b")
    with pytest.raises(InputError, match=told("label 2 of sample 1 has no name", "2 class names", "--class-names")):
        labelled([0, 2, 1], ClassOrder(("a", "b")))


def test_a_word_that_is_no_class(told):
    with pytest.raises(
        InputError, match=told("label 'catt' of sample 1", "none of the classes", "nearest is 'cat'", "--class-names")
    ):
        labelled(["dog", "catt"], ClassOrder(("dog", "cat")))


def test_too_many_words_are_no_classes(told):
    with pytest.raises(InputError, match=told("100,000 different words", "Name another column")):
        alphabetical("y", (f"id{i}" for i in range(100_001)))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("c.txt", "cat\ndog\n\n"),
        ("c.txt", "\ufeffcat\r\ndog"),
        ("c.json", '["cat", "dog"]'),
        ("c.json", '{"id2label": {"1": "dog", "0": "cat"}, "x": 1}'),
        ("c.json", '{"0": "cat", "1": "dog"}'),
    ],
)
def test_names_from_a_file(tmp_path, name, text):
    (tmp_path / name).write_text(text, "utf-8")
    assert class_order(str(tmp_path / name)) == ClassOrder(("cat", "dog"))


def test_names_from_a_text():
    assert class_order('cat, dog,"a, b"').names == ("cat", "dog", "a, b")
    assert class_order(["one"]).names == ("one",)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("nothing.txt", ("'nothing.txt' is no list with commas, and no file", "a name a line")),
        ("a,b,a", ("'a' comes twice", "Give each its own")),
        ("a,,b", ("an empty one", "--class-names")),
        ([], ("found 0",)),
    ],
)
def test_names_that_are_none(given, words, told, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=told("class names:", *words)):
        class_order(given)


@pytest.mark.parametrize("text", ['{"id2label": {"0": "a", "2": "b"}}', "[1, 2]", "3", "{"])
def test_json_without_names(tmp_path, text, told):
    (tmp_path / "c.json").write_text(text)
    with pytest.raises(InputError, match=told("c.json", "class names")):
        class_order(str(tmp_path / "c.json"))


def test_the_models_own_names_set_a_guess_right():
    found = in_order_of(from_arrays(X, ["cat", "ant", "cat"]), ("dog", "cat", "ant"))
    assert_array_equal(found.labels, [1, 2, 1])
    assert (found.class_names, found.classes_guessed) == (("dog", "cat", "ant"), False)


@pytest.mark.parametrize("names", [None, ("dog", "cow", "ant")])
def test_other_names_leave_the_guess(names):
    samples = from_arrays(X, ["cat", "ant", "cat"])
    assert in_order_of(samples, names) is samples


def test_a_given_order_is_not_changed():
    samples = from_arrays(X, ["cat", "ant", "cat"], class_names=["cat", "ant"])
    assert in_order_of(samples, ("ant", "cat")) is samples
