"""Answers of verifiers, read from whatever they print."""

from __future__ import annotations

import numpy as np
import pytest

from onnxfim.verifiers.answers import read_answer

FLAT = "((X_0 0.25)\n (X_1 -1e-3)\n (Y_0 1.0))"


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("unsat", "unsat"), ("unsat\n", "unsat"), ("UNSAT", "unsat"), ("holds", "unsat"), ("sat", "sat"), ("violated", "sat"),
        ("unknown", "unknown"), ("timeout", "timeout"), ("timed-out", "timeout"), ("error", "error"), ("unsat 12.5", "unsat"),
        ("unsat,12.5\n", "unsat"), ("loading model\nresult: unsat in 0.5 seconds\n", "unsat"), ("Result: safe-incomplete in 3.1 seconds", "unsat"),
        ("Result: unsafe-pgd in 3.1 seconds", "sat"), ("Result: timed out in 300 seconds", "timeout"),
        ("\x1b[1;32munsat\x1b[0m\r\n", "unsat"), ("\x1b]0;title\x07unsat", "unsat"), ("  unsat  ", "unsat"), ("unsat.", "unsat"),
    ],
)  # fmt: skip
def test_words_that_tools_answer_with(text, answer):
    assert read_answer(text, (2,)).answer == answer


@pytest.mark.parametrize(
    "text",
    [
        "", "\n\n", "verified 3 of 10 layers", "unsat cores are not supported", "safe", "holds up well so far", "sat down to think",
        "unsatisfied with the input", "error_rate 0.1", "no result", "verified", "Result: maybe",
    ],
)  # fmt: skip
def test_other_words_are_no_answer(text):
    said = read_answer(text, (2,))
    assert said.answer == "error"
    assert "expected sat, unsat, unknown or timeout" in said.note


def test_both_answers_are_none():
    assert read_answer("sat\nunsat\n", (2,)).note == "it said both sat and unsat"


@pytest.mark.parametrize("text", [f"sat\n{FLAT}", f"sat {FLAT}", "sat\nX float32 [1,2]\n0.25\n-0.001\nY float32 [1,1]\n1.0\n"])
def test_counterexamples_in_either_form(text):
    said = read_answer(text, (1, 2))
    assert said.answer == "sat"
    np.testing.assert_array_equal(said.point, [[0.25, -1e-3]])


@pytest.mark.parametrize(
    ("text", "note"),
    [
        ("sat", "it gave no counterexample"),
        ("sat\n((X_0 0.25))", "lacks 1 of 2 numbers"),
        ("sat\n((X_0 0.25) (X_7 1.0))", "has a value X_7, but the input has 2 numbers"),
        ("sat\n((X_0 0.25) (X_99999999999999999999 1.0))", "the input has 2 numbers"),
        ("sat\n((X_0 nan) (X_1 1.0))", "lacks 1 of 2 numbers"),
        ("sat\n((X_0 __import__) (X_1 1.0))", "lacks 1 of 2 numbers"),
        ("sat\nX float32 [1,2]\n0.25\n", "does not hold 2 numbers"),
        ("sat\nX float32 [1,2]\n0.25\ninf\n", "does not hold 2 numbers"),
    ],
)
def test_counterexamples_that_cannot_be_read(text, note):
    said = read_answer(text, (2,))
    assert (said.answer, said.point) == ("sat", None)
    assert note in said.note


def test_foreign_text_steers_nothing_and_is_cut():
    said = read_answer("\x00\x1b[2Jhello \u202e world\x07" + "y" * 10_000, (2,))
    assert said.answer == "error"
    assert said.note.isprintable()
    assert len(said.note) < 400
