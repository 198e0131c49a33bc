"""Step functions told from ladders: jumps, many jumps, slopes, rounded slopes."""

from __future__ import annotations

import pytest

from onnxfim.record.steps import Rung
from onnxfim.slopes.staircase import only_jumps

STEPS = (1e-3, 3e-3, 1e-2, 3e-2, 6e-2, 1e-1, 3e-1, 1.0)


def ladder(power, *, changed=lambda r: 1.0, cross=1.0):
    """Plain values whose squared change, of the directions that change, grows as ``step**power``."""
    return [Rung(r, r, None, changed(r) * r ** (power - 2), None, 1 - changed(r), cross) for r in STEPS]


@pytest.mark.parametrize(("power", "jumps"), [(0.0, True), (1.0, True), (1.2, True), (1.5, False), (2.0, False)])
def test_the_growth_of_what_changes_tells_them_apart(power, jumps):
    assert only_jumps(ladder(power)) is jumps
    assert only_jumps(ladder(power, changed=lambda r: min(1.0, 3 * r))) is jumps


def test_a_ladder_that_ended_on_a_plateau_tells_nothing():
    assert not only_jumps(ladder(0.0, cross=None))
    assert not only_jumps([])


def test_steps_that_change_hardly_anything_tell_nothing():
    assert not only_jumps(ladder(0.0, changed=lambda r: 0.005))


def test_rare_jumps_are_seen_at_larger_steps():
    assert only_jumps(ladder(0.0, changed=lambda r: 0.2 * r))
