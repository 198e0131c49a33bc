"""Properties as VNN-LIB: what is read back is the box that was meant, and what is asked is whether the prediction stays."""

from __future__ import annotations

import re
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from onnxfim.verifiers.properties import StaysInBox, box_around, number
from tests.support.places import Thing

VNNLIB = Thing("the vnnlib package", "pip install '.[verify]'")

FLOATS = st.floats(-4, 4, width=32)


def ends(text):
    """Both ends of each input in a text, as decimal fractions: read by nothing of the writer's."""
    found = re.findall(r"\(assert \((>=|<=) X\S* (-?\d+\.\d+)\)\)", text)
    return [[Fraction(v) for r, v in found if r == relation] for relation in (">=", "<=")]


@given(hnp.arrays(np.float32, 5, elements=FLOATS), st.floats(1e-6, 1), st.sampled_from([1.0, 3.7, 1 / 255]))
def test_the_box_holds_all_that_was_meant_and_hardly_more(x, epsilon, scale):
    low, high = box_around(x, epsilon, scale=scale, low=-2.0, high=2.0)
    text = StaysInBox(low, high, 0, 3).text(1)
    exact = [Fraction(float(v)) for v in x]
    reach = Fraction(epsilon) * Fraction(scale)
    for v, a, b in zip(exact, *ends(text), strict=True):
        wanted = min(max(v - reach, -2), v), max(min(v + reach, 2), v)
        assert a <= wanted[0] <= v <= wanted[1] <= b
        slack = Fraction(float(np.spacing(np.float32(6))))  # one step of float32 at the largest number there is here
        assert wanted[0] - a <= slack
        assert b - wanted[1] <= slack


@given(hnp.arrays(np.float32, 4, elements=st.floats(-1e6, 1e6, width=32)), st.floats(1e-9, 1e3))
def test_numbers_read_back_as_themselves_in_both_precisions(x, epsilon):
    low, high = box_around(x, epsilon, low=-np.inf, high=np.inf)
    for meant, told in zip((low, high), ends(StaysInBox(low, high, 0, 2).text(1)), strict=True):
        texts = [number(v) for v in meant.tolist()]
        assert [Fraction(t) for t in texts] == told == [Fraction(v) for v in meant.tolist()]
        assert [float(t) for t in texts] == meant.tolist()
        assert [float(np.float32(t)) for t in texts] == meant.tolist()  # each is a number of float32


def test_numbers_have_no_exponent():
    assert Fraction(number(1e-12)) == Fraction(1e-12)
    assert "e" not in number(1e-12).lower()
    assert number(0.1) == "0.1000000000000000055511151231257827021181583404541015625"
    assert number(-0.0) == "0.0"
    assert number(1e22) == "10000000000000000000000.0"


def test_a_sample_outside_the_valid_range_stays_in_its_box():
    low, high = box_around(np.array([5.0, 0.5], np.float32), 0.25, low=0.0, high=1.0)
    assert low.tolist() == [4.75, 0.25]  # it may move towards the range, and no farther out
    assert high.tolist() == [5.0, 0.75]


def test_float64_keeps_its_precision():
    low, high = box_around(np.array([0.1]), 0.01, low=-1.0, high=1.0)
    assert high - low == pytest.approx(0.02, rel=1e-12)


def box(K, prediction, **options):
    return StaysInBox(np.zeros((1, 2)), np.ones((1, 2)), prediction, K, **options)


def test_every_other_class_is_a_way_out():
    text = box(4, 2).text(1)
    assert re.findall(r"\(and \(>= (Y_\d) (Y_\d)\)\)", text) == [("Y_0", "Y_2"), ("Y_1", "Y_2"), ("Y_3", "Y_2")]
    assert text.count("declare-const X") == 2
    assert text.count("declare-const Y") == 4


def test_two_classes_need_no_disjunction():
    assert "(assert (>= Y_1 Y_0))" in box(2, 0).text(1)
    assert "or" not in box(2, 1).text(1).replace("for", "")


@pytest.mark.parametrize(("prediction", "relation"), [(1, "<="), (0, ">=")])
@pytest.mark.parametrize("threshold", [0.0, 0.5])
def test_a_lone_output_is_held_against_its_threshold(prediction, relation, threshold):
    about = box(1, prediction, threshold=threshold)
    assert f"(assert ({relation} Y_0 {threshold}))" in about.text(1)
    beyond = threshold + (1e-3 if prediction == 0 else -1e-3)
    assert about.is_met(np.array([beyond]))
    assert about.is_met(np.array([threshold]))  # even: not certified
    assert not about.is_met(np.array([2 * threshold - beyond]))


def test_ties_count_as_changed():
    assert box(3, 0).is_met(np.array([1.0, 1.0, 0.0]))
    assert not box(3, 0).is_met(np.array([1.0, 0.9, 0.0]))


@pytest.mark.parametrize("K", [1, 2, 5])
@pytest.mark.parametrize("prediction", [0, 1])
def test_version_2_is_what_its_own_parser_reads(K, prediction):
    vnnlib = VNNLIB.load("vnnlib")
    compat = VNNLIB.load("vnnlib.compat")
    x = np.random.default_rng(0).random((2, 3)).astype(np.float32)
    low, high = box_around(x, 0.1, low=0.0, high=1.0)
    about = StaysInBox(low, high, prediction, K, threshold=0.25, output_shape=(1, K), about=("sample 3",))
    query = vnnlib.parse_query_string(about.text(2))
    (network,) = query.networks
    assert [(i.name, i.shape) for i in network.inputs] == [("X", [1, 2, 3])]
    assert [(o.name, o.shape) for o in network.outputs] == [("Y", [1, K])]
    (case,) = compat.transform(query)
    np.testing.assert_array_equal(np.array(case.input_box), np.stack([low.ravel(), high.ravel()], 1))
    z = np.random.default_rng(1).standard_normal((200, K))
    met = [any(bool((np.array(p.coeff_matrix) @ row <= np.array(p.rhs)).all()) for p in case.output_constraints) for row in z]
    assert met == [about.is_met(row) for row in z]
    assert any(met)
    assert not all(met)


def test_nothing_but_plain_text_is_written():
    assert StaysInBox(np.zeros(2), np.ones(2), 0, 2, about=("sample 1",)).text(2).isascii()
