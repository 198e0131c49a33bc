"""Images whose labels stand in a table beside them."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from onnxfim.data import load
from onnxfim.errors import InputError
from tests.support.places import DEV

Image = DEV.load("PIL.Image")


@pytest.fixture
def folder(tmp_path):
    """Six pictures, told apart by their grey, two of them in a folder below."""
    root = tmp_path / "pictures"
    (root / "more").mkdir(parents=True)
    for i, name in enumerate(("a.png", "b.png", "c.png", "d.png", "more/e.png", "more/f.png")):
        Image.fromarray(np.full((4, 5), 10 * i, np.uint8)).save(root / name)
    return root


ROWS = "a,cat\nb,dog\nc,cat\nd,ant\ne,dog\nf,ant\n"


def greys(samples):
    return np.rint(samples.inputs[:, 0, 0, 0] * 255).astype(int).tolist()


@pytest.mark.parametrize(
    "text",
    [
        "id,label\n" + ROWS,
        "label,file\n" + "".join(",".join(reversed(line.split(","))) + "\n" for line in ROWS.splitlines()),
        "file_name;label\n" + ROWS.replace("a,", "a.png,").replace(",", ";"),
        "path,label,split\n"
        + "".join(f"{'more/' if n in 'ef' else ''}{n}.png,{k},x\n" for n, k in (r.split(",") for r in ROWS.splitlines())),
        "name,breed\n" + ROWS,
    ],
    ids=["Kaggle", "turned", "semicolon", "paths", "two columns"],
)
def test_each_image_gets_its_label(folder, text):
    (folder / "labels.csv").write_text(text)
    found = load(folder, shape=(1, 4, 5))
    assert found.class_names == ("ant", "cat", "dog")
    by_grey = dict(zip(greys(found), found.labels.tolist(), strict=True))
    assert by_grey == {0: 1, 10: 2, 20: 1, 30: 0, 40: 2, 50: 0}
    assert found.classes_guessed
    assert found.by_class
    assert "labels.csv" in found.source


def test_the_order_of_classes_can_be_given(folder):
    (folder / "labels.csv").write_text("id,label\n" + ROWS)
    found = load(folder, shape=(1, 4, 5), class_names=["dog", "cat", "ant"])
    assert (found.labels.tolist(), found.classes_guessed) == ([1, 0, 1, 2, 0, 2], False)


def test_numbers_are_indices_and_part_of_the_hash(folder):
    (folder / "labels.csv").write_text("id,label\na,1\nb,0\nc,1\nd,0\ne,1\nf,0\n")
    found = load(folder, shape=(1, 4, 5))
    assert (found.labels.tolist(), found.class_names) == ([1, 0, 1, 0, 1, 0], None)
    (folder / "labels.csv").write_text("id,label\na,0\nb,0\nc,1\nd,0\ne,1\nf,0\n")
    assert load(folder, shape=(1, 4, 5)).sha256 != found.sha256


def test_numbers_are_names_where_classes_are_called_so(folder):
    (folder / "labels.csv").write_text("id,label\na,3\nb,1\nc,2\nd,1\ne,2\nf,3\n")
    assert load(folder, shape=(1, 4, 5), class_names=["1", "2", "3"]).labels.tolist() == [2, 0, 1, 0, 1, 2]


def test_what_stands_for_no_label_makes_no_words_of_numbers(folder):
    (folder / "labels.csv").write_text("id,label\na,2\nb,n/a\nc,1\nd,NaN\ne,\nf,2\n")
    found = load(folder, shape=(1, 4, 5))
    assert (found.labels.tolist(), found.class_names, len(found.skipped)) == ([2, 1, 2], None, 3)


def test_words_that_python_would_read_as_numbers_are_words(folder):
    (folder / "labels.csv").write_text("id,label\na,1_0\nb,1_1\nc,1_0\nd,1_1\ne,1_0\nf,1_1\n")
    found = load(folder, shape=(1, 4, 5))
    assert (found.labels.tolist(), found.class_names) == ([0, 1, 0, 1, 0, 1], ("1_0", "1_1"))


def test_an_image_without_a_label_is_skipped(folder):
    (folder / "labels.csv").write_text("id,label\na,cat\nb,\nc,dog\nzz,dog\n")
    found = load(folder, shape=(1, 4, 5))
    assert [s.reason for s in found.skipped] == [f"{n}.png has no label in labels.csv" for n in "bdef"]
    assert greys(found) == [0, 20]


def test_the_table_may_lie_elsewhere(folder, tmp_path):
    (tmp_path / "other.csv").write_text("id,label\n" + ROWS)
    assert load(folder, shape=(1, 4, 5), labels_path=tmp_path / "other.csv").class_names == ("ant", "cat", "dog")


def test_metadata_of_hugging_faces_image_folders(folder):
    (folder / "metadata.csv").write_text("file_name,label\na.png,cat\nb.png,dog\n")
    assert load(folder, shape=(1, 4, 5)).labels.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("text", "options", "words"),
    [
        ("id,label\nx,cat\n../d,dog\n", {}, ("none of its 2 lines names an image", "'x'")),
        ("id,label\na,cat\na.png,dog\n", {}, ("names 'a.png' twice, as 'cat' and as 'dog'",)),
        ("id,label\na,cat,1\n", {}, ("line of 'a' has 3 cells, expected 2",)),
        ("id,x,y\na,1,2\n", {}, ("3 columns, none of them called label", "--label-column")),
        ("id,x,y\na,1,2\n", {"label_column": "z"}, ("has no column 'z'", "'x'")),
        ("id,x,y\na,1,2\n", {"label_column": "²"}, ("has no column '²'", "'x'")),
        ("id,label\na,\nb,\n", {}, ("gives no image a label",)),
        ("id,label\na,cow\n", {"class_names": ["cat"]}, ("label 'cow' of sample 0", "'cat'")),
    ],
)
def test_mistakes(folder, text, options, words, told):
    (folder / "labels.csv").write_text(text)
    with pytest.raises(InputError, match=told("labels.csv", *words)):
        load(folder, shape=(1, 4, 5), **options)


def test_names_in_two_folders_are_told_apart_by_their_paths(folder):
    Image.fromarray(np.full((4, 5), 99, np.uint8)).save(folder / "more" / "a.png")
    (folder / "labels.csv").write_text("id,label\na.png,0\nmore/a.png,1\n")
    found = load(folder, shape=(1, 4, 5))
    assert dict(zip(greys(found), found.labels.tolist(), strict=True)) == {0: 0, 99: 1}
    assert_array_equal(found.indices, [0, 4])


def test_class_folders_in_a_given_order(tmp_path, told):
    for name in ("ant", "bee"):
        (tmp_path / "p" / name).mkdir(parents=True)
        Image.fromarray(np.zeros((4, 5), np.uint8)).save(tmp_path / "p" / name / "x.png")
    found = load(tmp_path / "p", shape=(1, 4, 5), class_names=["bee", "cow", "ant"])
    assert (found.labels.tolist(), found.class_names) == ([2, 0], ("bee", "cow", "ant"))
    with pytest.raises(InputError, match=told("'bee'", "none of the classes")):
        load(tmp_path / "p", shape=(1, 4, 5), class_names=["ant", "cow"])
