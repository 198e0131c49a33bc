"""The boxes of a sample: they close in on the radius of a verifier that always answers right, and stop where one does not."""

from __future__ import annotations

import itertools

import pytest

from onnxfim.verifiers.closing_in import CONTROL, ClosingIn


def played(search, radius, *, decides=lambda epsilon: True):
    """The half-widths asked about until the end, answered for a true radius."""
    asked = []
    for _ in range(100):
        epsilon = search.next()
        if epsilon is None:
            return asked
        asked.append(epsilon)
        if not decides(epsilon):
            search.told(epsilon, "unknown")
        elif epsilon < radius:
            search.told(epsilon, "unsat")
        else:
            search.told(epsilon, "sat", changed=min(epsilon, radius * 1.0001))
    raise AssertionError("it does not end")


@pytest.mark.parametrize("low", [0.0, 0.001, 0.09])
@pytest.mark.parametrize("high", [None, 0.1002, 0.4, 3.0])
@pytest.mark.parametrize("guess", [0.01, 0.1, 0.5])
def test_it_closes_in_on_the_radius(low, high, guess):
    search = ClosingIn(low=low, high=high, guess=guess, most=1.0, precision=0.05)
    asked = played(search, 0.1)
    assert 0.1 / 1.051 <= max(search.certified, low) < 0.1  # the ends are 5 % apart at most, and 1e-4 above the radius
    assert len(asked) <= 14
    assert not search.contradicted


def test_the_first_box_holds_what_is_known_to_change_it():
    search = ClosingIn(low=0.0, high=0.2, guess=0.1, most=1.0, precision=0.05)
    assert search.next() == pytest.approx(0.2 * CONTROL)


def test_a_verifier_that_certifies_it_is_not_believed():
    search = ClosingIn(low=0.0, high=0.2, guess=0.1, most=1.0, precision=0.05)
    search.told(search.next(), "unsat")
    assert search.contradicted
    assert search.certified == 0.0
    assert search.next() is None


def test_all_valid_inputs_may_be_certified():
    search = ClosingIn(low=0.0, high=None, guess=0.1, most=1.0, precision=0.05)
    asked = played(search, 5.0)
    assert search.certified == 1.0
    assert asked[-1] == 1.0


def test_what_is_not_decided_is_the_upper_end():
    search = ClosingIn(low=0.0, high=0.2, guess=0.19, most=1.0, precision=0.05)
    played(search, 0.15, decides=lambda epsilon: epsilon < 0.05)
    assert 0.05 / 1.05 <= search.certified <= 0.05


def test_a_verifier_that_decides_nothing_is_given_up():
    search = ClosingIn(low=0.0, high=0.2, guess=0.1, most=1.0, precision=0.05)
    asked = played(search, 0.15, decides=lambda epsilon: False)
    assert len(asked) <= 6
    assert search.certified == 0.0


def test_an_error_is_a_box_that_was_not_decided():
    search = ClosingIn(low=0.0, high=0.2, guess=0.1, most=1.0, precision=0.05)
    search.told(search.next(), "sat", changed=0.2)
    search.told(search.next(), "unsat")
    erred = search.next()
    search.told(erred, "error")
    asked = played(search, 0.19)
    assert asked
    assert max(asked) < erred
    assert erred / 1.051 <= search.certified < erred


def test_errors_alone_end_it():
    search = ClosingIn(low=0.0, high=0.2, guess=0.1, most=1.0, precision=0.05)
    for _ in range(4):
        search.told(search.next(), "error")
    assert search.next() is None


@pytest.mark.parametrize("high", [0.6, None])
def test_a_control_box_of_its_own_comes_first(high):
    search = ClosingIn(low=0.0, high=high, guess=0.1, most=1.0, precision=0.05, control=3.0)
    assert (search.next(), search.asks_control, search.controlled) == (3.0, True, False)
    search.told(3.0, "sat", changed=2.5)
    assert (search.asks_control, search.controlled) == (False, True)
    asked = played(search, 5.0 if high is None else 0.1)
    assert asked
    assert max(asked) <= 1.0  # what was found beyond valid inputs is no end
    assert search.certified == 1.0 if high is None else 0.1 / 1.051 <= search.certified < 0.1


@pytest.mark.parametrize("high", [0.6, None])
def test_none_in_a_control_box_is_not_believed(high):
    search = ClosingIn(low=0.0, high=high, guess=0.1, most=1.0, precision=0.05, control=3.0)
    search.told(3.0, "unsat")
    assert (search.contradicted, search.certified, search.next()) == (True, 0.0, None)


def test_what_counts_as_a_control():
    search = ClosingIn(low=0.0, high=None, guess=0.1, most=1.0, precision=0.05)
    search.told(search.next(), "unsat")
    search.told(search.next(), "sat")
    assert not search.controlled, "it named no point"
    search.told(search.next(), "sat", changed=0.12)
    assert search.controlled


def test_what_is_expected_is_near_to_what_is_asked():
    for high, radius in itertools.product((None, 0.4), (0.05, 0.1, 0.3)):
        search = ClosingIn(low=0.0, high=high, guess=0.1, most=1.0, precision=0.05)
        expected = search.expected
        assert expected / 3 <= len(played(search, radius)) <= 3 * expected
        assert search.expected == search.asked
