"""Lengths of moves that end where a coordinate has no more room, against a dense search along the ray."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose

from onnxfim.slopes.lengths import Euclidean, LargestCoordinate

RNG = np.random.default_rng(0)
V = RNG.standard_normal((40, 6)) * (RNG.random((40, 6)) < 0.8)
V[:, 0] += V[:, 0] == 0
ROOM = RNG.random((40, 6)) * 3
UNIT = np.array([0.2, 1.0, 3.0, 0.5, 1.0, 2.0])
LENGTHS = {"l2": Euclidean(), "linf": LargestCoordinate(np.ones(6)), "linf in units": LargestCoordinate(UNIT)}


def size(name, moves):
    """The length, written out."""
    return np.sqrt((moves**2).sum(axis=-1)) if name == "l2" else np.abs(moves / (UNIT if "units" in name else 1.0)).max(axis=-1)


@pytest.mark.parametrize("name", LENGTHS)
@pytest.mark.parametrize("part", [0.1, 0.5, 0.9, 1.0])
def test_a_move_has_the_length_that_was_asked_for_and_stays_inside(name, part):  # 1e-6: what the L2 move is solved to
    length = LENGTHS[name]
    reach = length.reach(V, ROOM)
    assert_allclose(reach, size(name, np.where(V != 0, ROOM, 0.0)))
    moves = length.along(V, ROOM, part * reach)
    assert_allclose(length.of(moves), part * reach, rtol=3e-6)
    assert_allclose(size(name, moves), length.of(moves))
    assert (np.abs(moves) <= ROOM * (1 + 1e-12)).all()
    assert (moves * V >= 0).all()
    assert (moves[V == 0] == 0).all()


@pytest.mark.parametrize("name", LENGTHS)
def test_it_is_the_projected_ray_itself(name):  # the densest of 20,000 points of it
    length, part = LENGTHS[name], 0.7
    for v, room in zip(V[:10], ROOM[:10], strict=True):
        wanted = part * length.reach(v[None], room[None])
        move = length.along(v[None], room[None], wanted)[0]
        t = np.linspace(0, 60, 20001)[:, None]
        points = np.sign(v) * np.minimum(t * np.abs(v), room)
        nearest = points[np.abs(size(name, points) - wanted).argmin()]
        assert_allclose(move, nearest, atol=0.02)


def test_a_coordinate_without_a_unit_is_not_moved():
    length = LargestCoordinate(np.array([1.0, 0.0]))
    ray = length.ray(np.array([[-2.0, 5.0]]))
    assert_allclose(ray, [[-1.0, 0.0]])
    assert_allclose(length.along(ray, np.ones((1, 2)), np.array([0.5])), [[-0.5, 0.0]])


def test_of_all_moves_of_a_length_the_signs_change_a_linear_function_most():
    length, g = LargestCoordinate(UNIT), RNG.standard_normal(6)
    ray = length.ray(g)
    others = RNG.uniform(-1, 1, (500, 6)) * UNIT
    assert length.of(ray[None]) == 1
    assert (others @ g <= ray @ g).all()
    assert_allclose(ray @ g, np.abs(g * UNIT).sum())
