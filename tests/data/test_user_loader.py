"""A function of the user's Python file that gives the samples."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from onnxfim.data import Preprocessing
from onnxfim.data.class_labels import ClassOrder
from onnxfim.data.converting import Target
from onnxfim.data.samples import Choice
from onnxfim.data.user_loader import load_by, names_code
from onnxfim.errors import InputError

TARGET = Target((2,), np.dtype(np.float32), Preprocessing())


@pytest.fixture
def loader(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def write(text, name="loader.py"):
        (tmp_path / name).write_text(f"import numpy as np\n{text}\n", "utf-8")

    return write


def loaded(data="loader.py:f", **options):
    return load_by(data, TARGET, Choice(options.pop("limit", None)), input_name="x", **options)


@pytest.mark.parametrize(
    "body",
    [
        "def f(): return np.ones((3, 2)), np.array([0, 1, 0])",
        "def f(): return {'x': np.ones((3, 2)), 'labels': [0, 1, 0]}",
        "def f(): return {'targets': [0, 1, 0], 'image': np.ones((3, 2))}",
        "def f():\n    for y in (0, 1, 0): yield np.ones(2), y",
        "def f(): return [(np.ones(2), 0), (np.ones(2), 1), (np.ones(2), 0)]",
        "def f(): return ({'x': np.ones((1, 2)), 'label': [y]} for y in (0, 1, 0))",
        "class f:\n    def __len__(self): return 3\n    def __getitem__(self, i): return np.ones(2), i % 2",
        "from onnxfim.data import from_arrays\ndef f(): return from_arrays(np.ones((3, 2)), [0, 1, 0])",
    ],
)
def test_what_a_function_may_give(loader, body):
    loader(body)
    found = loaded()
    assert_array_equal(found.inputs, np.ones((3, 2)))
    assert found.labels.tolist() == [0, 1, 0]


def test_load_data_is_the_function_where_none_is_named(loader):
    loader("def load_data(): return np.zeros((4, 2))")
    assert len(loaded("loader.py", limit=3)) == 3


def test_names_order_and_held_inputs(loader):
    loader("def f(): return {'x': np.ones((2, 2)), 'mask': np.ones((2, 5)), 'label': ['u', 'v']}")
    found = loaded(held=("mask",), order=ClassOrder(("v", "u")))
    assert (found.labels.tolist(), found.held["mask"].shape) == ([1, 0], (2, 5))


def test_it_is_run_beside_its_own_modules_and_prints_aside(loader, capsys):
    loader("VALUE = 7", "beside_it.py")
    loader("import beside_it\nprint('hello')\ndef f():\n    print('there')\n    return np.full((2, 2), beside_it.VALUE)")
    before = list(sys.path)
    assert_array_equal(loaded().inputs, np.full((2, 2), 7))
    out, err = capsys.readouterr()
    assert (out, err.split()) == ("", ["hello", "there"])
    assert sys.path == before
    sys.modules.pop("beside_it", None)


@pytest.mark.parametrize(
    ("body", "data", "words"),
    [
        (
            "def f():\n    x = 1\n    return x / 0",
            "loader.py:f",
            ("loader.py, line 4: ZeroDivisionError: division by zero", "Mend it"),
        ),
        ("def f():\n    yield np.ones(2)\n    raise KeyError('a\\nb')", "loader.py:f", ("loader.py, line 4: KeyError",)),
        ("def f(:", "loader.py:f", ("loader.py, line 2: SyntaxError",)),
        ("import nothing_of_that_name", "loader.py:f", ("line 2: ModuleNotFoundError",)),
        ("raise SystemExit(3)", "loader.py:f", ("line 2: SystemExit",)),
        ("def g(): pass", "loader.py:f", ("has no function 'f'", "it has g", "loader.py:NAME")),
        ("def f(): pass", "loader.py:f", ("gives nothing", "Return them")),
        ("def f(): return 3", "loader.py:f", ("of type int", "expected an array")),
        ("def f(): return (i for i in range(2)), [0, 1]", "loader.py:f", ("an iterable beside its labels", "Yield (x, y)")),
        ("def f(): return {'labels': [1]}", "loader.py:f", ("a dict without 'x'",)),
        ("def f(): return np.ones((3, 5))", "loader.py:f", ("shape (5,)", "the model takes (2,)")),
        ("", "none.py:f", ("none.py: no such file", "function 'f'")),
    ],
)
def test_mistakes_are_told_in_one_line(loader, body, data, words, told):
    loader(body)
    with pytest.raises(InputError, match=told(*words)):
        loaded(data)


def test_an_interrupt_goes_through(loader):
    loader("def f(): raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        loaded()


@pytest.mark.parametrize(
    ("data", "code"),
    [("a.py", True), ("a.py:f", True), ("C:\\x\\a.py:f", True), ("A.PY:f", True), ("a.npz", False), ("a.py:", False), ("random", False), ("a.pyc:f", False),
     ("C:\\x\\a.csv", False)],
)  # fmt: skip
def test_what_names_code(data, code):
    assert names_code(data) == code
