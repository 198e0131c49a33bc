"""CSV files: delimiters, headers, label columns, and what is told of each row that cannot be used."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from onnxfim.data import Preprocessing, from_arrays, load
from onnxfim.data import delimited as module
from onnxfim.errors import InputError


@pytest.fixture
def csv(tmp_path):
    def save(text, name="d.csv"):
        (tmp_path / name).write_bytes(text.encode("utf-8") if isinstance(text, str) else text)
        return tmp_path / name

    return save


TEXT = "a,b,label\n1.5,2,0\n-3e-2,4.25,1\n"
VALUES = np.array([[1.5, 2], [-0.03, 4.25]], np.float32)


@pytest.mark.parametrize(
    "text",
    [
        TEXT,
        "\ufeff" + TEXT,
        TEXT.replace(",", ";"),
        TEXT.replace(",", "\t"),
        TEXT.replace(",", "|"),
        TEXT.replace("\n", "\r\n"),
        TEXT.replace("\n", "\n\n"),
        "a, b, label\n1.5, 2, 0\n-3e-2, 4.25, 1",
        '"a","b","label"\n"1.5","2","0"\n"-3e-2","4.25","1"\n',
        ",a,b,label\n0,1.5,2,0\n1,-3e-2,4.25,1\n",
    ],
    ids=["plain", "BOM", "semicolon", "tab", "bar", "CRLF", "blank lines", "spaces", "quoted", "pandas index"],
)
def test_a_table_is_read_however_it_was_written(csv, text):
    found = load(csv(text), shape=(2,))
    assert_array_equal(found.inputs, VALUES)
    assert_array_equal(found.labels, [0, 1])
    assert (found.feature_names, found.skipped, found.class_names) == (("a", "b"), (), None)


def test_the_hash_is_of_the_values_whatever_holds_them(csv):
    found = load(csv(TEXT), shape=(2,))
    assert found.sha256 == from_arrays(VALUES, np.array([0, 1])).sha256
    whole = load(csv("a,b,label\n1,2,0\n3,4,1\n"))
    assert whole.sha256 == from_arrays(np.array([[1, 2], [3, 4]]), np.array([0, 1])).sha256


@pytest.mark.parametrize("column", ["kind", "2", "-1"])
def test_the_labels_column_by_name_or_place(csv, column):
    found = load(csv("a,b,kind\n1,2,x\n3,4,y\n5,6,x\n"), label_column=column)
    assert_array_equal(found.labels, [0, 1, 0])
    assert (found.class_names, found.classes_guessed, found.feature_names) == (("x", "y"), True, ("a", "b"))


@pytest.mark.parametrize(("shape", "label"), [((2,), None), ((1,), [2, 4]), (None, [2, 4])])
def test_a_column_called_as_labels_are_is_one_unless_the_model_takes_all(csv, shape, label):
    found = load(csv("a,target\n1,2\n3,4\n"), shape=shape)
    assert (found.labels is None) == (label is None)
    assert found.inputs.shape[1] == (2 if label is None else 1)


def test_without_a_header(csv):
    found = load(csv("5.1,3.5,setosa\n4.9,3.0,virginica\n"), label_column="-1")
    assert_array_equal(found.inputs, np.array([[5.1, 3.5], [4.9, 3.0]], np.float32))
    assert (found.feature_names, found.class_names) == (None, ("setosa", "virginica"))


def test_names_that_are_numbers_counted_from_0_are_a_header(csv):
    found = load(csv("0,1,2,3,label\n9,8,7,6,1\n5,4,3,2,0\n"))
    assert_array_equal(found.inputs, [[9, 8, 7, 6], [5, 4, 3, 2]])
    assert_array_equal(found.labels, [1, 0])


def test_feature_columns_are_taken_in_their_order(csv):
    found = load(csv("id,a,b,label\nx1,1,2,0\nx2,3,4,1\n"), feature_columns=("b", "a"))
    assert_array_equal(found.inputs, [[2, 1], [4, 3]])
    assert (found.feature_names, list(found.labels)) == (("b", "a"), [0, 1])


def test_rows_fill_the_models_input(csv):
    found = load(csv("label,p0,p1,p2,p3\n1,1,2,3,4\n"), shape=(1, 2, 2))
    assert_array_equal(found.inputs, [[[[1, 2], [3, 4]]]])
    assert found.feature_names is None, "pixels have places"
    series = load(csv("label,p0,p1,p2,p3\n1,1,2,3,4\n"), shape=(2, 2))
    assert series.feature_names == ("p0", "p1", "p2", "p3")


def test_preprocessing_is_that_of_arrays(csv):
    scaled = Preprocessing(mean=(1.0,), std=(2.0,))
    found = load(csv(TEXT), shape=(2,), preprocessing=scaled)
    assert_array_equal(found.inputs, from_arrays(VALUES, preprocessing=scaled).inputs)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (",2,0", "has no value in column 'a'"),
        ("NA,2,0", "has no value in column 'a'"),
        ("1,?,0", "has no value in column 'b'"),
        ("1,nan,0", "has no value in column 'b'"),
        ("1,2,", "has no label"),
        ("1,x,0", "holds 'x' in column 'b', which is no number"),
        ("1,1_0,0", "holds '1_0' in column 'b', which is no number"),
        ("1,2", "has 2 cells, expected 3 as the first row has"),
        ("1,2,0,9", "has 4 cells, expected 3 as the first row has"),
        ("1,inf,0", "holds 1 NaN or infinite values"),
    ],
)
def test_a_row_with_a_fault_is_skipped_for_it(csv, row, reason):
    found = load(csv(f"a,b,label\n1,2,0\n{row}\n3,4,1\n"))
    assert [(s.index, s.reason) for s in found.skipped] == [(1, reason)]
    assert_array_equal(found.indices, [0, 2])
    assert_array_equal(found.labels, [0, 1])
    assert_array_equal(found.inputs, [[1, 2], [3, 4]])


@pytest.mark.parametrize(
    ("labels", "names", "found"),
    [
        (("False", "True", "False"), ["True", "False"], [1, 0, 1]),
        (("FALSE", "TRUE", "FALSE"), ["no", "yes"], [0, 1, 0]),
        (("3", "1", "2"), ["1", "2", "3"], [2, 0, 1]),
        (("0", "1", ""), ["1", "0"], [1, 0]),
        (("2", "1", "0"), ["a", "b", "c"], [2, 1, 0]),
    ],
)
def test_labels_are_names_where_classes_are_called_so(csv, labels, names, found):
    path = csv("a,b,label\n" + "".join(f"{i},{i + 1},{label}\n" for i, label in enumerate(labels)))
    assert load(path, class_names=names).labels.tolist() == found


@pytest.mark.parametrize("none", ["", "n/a", "NaN", "NULL", " null "])
def test_what_stands_for_no_label_makes_no_words_of_numbers(csv, none):
    found = load(csv(f"a,b,label\n0,1,1\n1,2,{none}\n2,3,2\n"))
    assert (found.labels.tolist(), found.class_names, [s.reason for s in found.skipped]) == ([1, 2], None, ["has no label"])
    words = load(csv(f"a,b,label\n0,1,dog\n1,2,{none}\n2,3,cat\n"))
    assert (words.labels.tolist(), words.class_names) == ([1, 0], ("cat", "dog"))


def test_true_and_false_are_words_of_all_rows(csv):
    text = "a,b,label\n" + "".join(f"{i},{i + 1},{i < 5}\n" for i in range(8))
    assert load(csv(text), limit=3).labels.tolist() == [1, 1, 1]
    assert load(csv(text)).labels.tolist() == [1, 1, 1, 1, 1, 0, 0, 0]


def test_true_and_false_are_numbers(csv):
    assert_array_equal(load(csv("a,b,label\nTrue,2,0\nfalse,4,1\n")).inputs, [[1, 2], [0, 4]])


def test_a_class_may_be_called_none(csv):
    assert load(csv("a,label\n1,none\n2,some\n")).class_names == ("none", "some")


def test_only_what_is_asked_for_is_read(csv):
    head = "a,label\n" + "".join(f"{i},{i % 2}\n" for i in range(20_000))
    path = csv(head.encode() + b"\xff\n")
    assert_array_equal(load(path, limit=5).inputs[:, 0], range(5))
    with pytest.raises(InputError, match=r"d\.csv: is not UTF-8 text .* Save it as UTF-8"):
        load(path)


def test_classes_are_those_of_all_rows_although_few_are_taken(csv):
    found = load(csv("a,label\n1,c\n2,b\n3,a\n"), limit=1)
    assert (list(found.labels), found.class_names) == ([2], ("a", "b", "c"))


def test_a_seeded_draw_is_that_of_arrays(csv):
    rows = np.random.default_rng(0).random((40, 2)).astype(np.float32)
    path = csv("a,b\n" + "".join(f"{a},{b}\n" for a, b in rows.tolist()))
    found, twin = load(path, limit=7, seed=3), from_arrays(rows, limit=7, seed=3)
    assert_array_equal(found.indices, twin.indices)
    assert found.sha256 == twin.sha256


@pytest.mark.parametrize(
    ("text", "options", "words"),
    [
        ("", {}, ("is empty", "a row for each sample")),
        ("a,b\n", {}, ("no row below its header",)),
        ("a;b\n1,5;2\n2,5;3\n", {}, ("column 'a' holds '1,5', a number with a comma", "decimal point")),
        ('a,b\n"1,234.5",2\n', {}, ("'1,234.5', a number with a comma",)),
        ("city,a\nRome,1\nParis,2\n", {}, ("column 'city' holds no number", "'Rome'", "--feature-columns")),
        ("a,b\n1,2\n", {"label_column": "lable"}, ("has no column 'lable'", "'a', 'b'", "--label-column")),
        ("1,2\n3,4\n", {"label_column": "y"}, ("has no column 'y'", "first line holds numbers", "0 to 1")),
        ("a,b,b\n1,2,3\n", {"label_column": "b"}, ("2 columns called 'b'", "by its place")),
        ("a,b\n1,2\n", {"label_column": "a", "feature_columns": ("a",)}, ("label and feature",)),
        ("label\n1\n2\n", {"label_column": "label"}, ("no column beside the label",)),
        ("a,b,c\n1,2,3\n", {"shape": (2,)}, ("3 feature columns ('a', 'b', 'c')", "takes 2 numbers", "--label-column")),
        ("a,b,c,label\n1,2,3,0\n", {"shape": (2,)}, ("3 feature columns", "--feature-columns")),
        ("a\n1\n", {"shape": (2,)}, ("1 feature column ('a')", "that the model was trained on")),
        ('a,b\n1,"2\n3,4\n' + "5,6\n" * 40_000, {}, ("cannot be read", "quotation mark that is not closed")),
        ("a,b\n1,2\n", {"labels_path": "y.npy"}, ("is a table", "--label-column")),
        ("a,label\n1,0.5\n", {}, ("label 0.5 of sample 0 is no class index",)),
    ],
    ids=lambda v: str(v)[:20],
)
def test_mistakes(csv, text, options, words, told):
    with pytest.raises(InputError, match=told("d.csv", *words)):
        load(csv(text), **options)


def test_files_of_other_kinds(csv, told):
    for content, words in ((b"\x00\x01\xff\xfe" * 9, "is not UTF-8"), ("a,b\n1,2\n".encode("utf-16"), "is not UTF-8")):
        with pytest.raises(InputError, match=told("d.csv", words)):
            load(csv(content))


def test_a_line_without_end_is_not_read(csv, monkeypatch, told):
    monkeypatch.setattr(module, "_LINE", 1000)
    with pytest.raises(InputError, match=told("a line of more than 1,000 letters")):
        load(csv("a,b\n1," + "2" * 1000))


def test_arrays_have_no_columns(tmp_path, told):
    np.savez(tmp_path / "d.npz", inputs=np.ones((2, 2)))
    with pytest.raises(InputError, match=told("d.npz: has no columns", "Leave out --label-column")):
        load(tmp_path / "d.npz", label_column="y")
