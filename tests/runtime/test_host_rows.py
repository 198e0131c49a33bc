"""Rows that NumPy makes on the CPU: bit by bit those of the graph that makes them on a device."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from onnxfim.runtime import forward as forward_module
from onnxfim.runtime.forward import OnnxForward
from onnxfim.runtime.hardware import Hardware
from onnxfim.runtime.host_rows import made_rows, makes
from onnxfim.runtime.perturb import BoundPair
from onnxfim.runtime.rows import Moves, Rademacher, Rows, dither_noise, taken
from onnxfim.slopes.differences import DifferenceJacobian, Request, Sample
from tests.support.models import Mlp

SHAPE = (2, 3, 2)
X = np.random.default_rng(0).standard_normal((5, *SHAPE))


@pytest.fixture(scope="module")
def forward(tmp_path_factory):
    path = tmp_path_factory.mktemp("host") / "mlp.onnx"
    path.write_bytes(Mlp.draw(3, 12).onnx().SerializeToString())
    return OnnxForward(
        path, input_name="x", output_name="z", shape=SHAPE, dtype=np.dtype(np.float32), hardware=Hardware(("cpu",)), batch=8
    )  # fmt: skip


@pytest.mark.parametrize("inside", [None, (-0.5, 0.5)])
@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("dithered", [False, True])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("sample", [[3, 3, 3, 3, 3, 3], [4, 0, 0, 2, 4, 1]], ids=["of one sample", "of several"])
def test_rows_are_those_of_the_graph(forward, monkeypatch, sample, dtype, dithered, scaled, inside):
    dtype, count = np.dtype(dtype), len(sample)
    monkeypatch.setattr(forward, "_dtype", dtype)
    monkeypatch.setattr(forward, "_wide", np.dtype(np.float64) if dtype == np.float64 else np.dtype(np.float32))
    monkeypatch.setattr(forward, "_pairs", {})
    rng = np.random.default_rng(1)
    rows = Rows(
        sample=np.array(sample, np.int64), v=Rademacher(1).signs(0, 3, count, 12), scale=rng.standard_normal(count),
        w=dither_noise((1, 2), 0, count, 12)[:, 0] if dithered else None, dither=0.3 if dithered else 0.0, inside=inside,
        field=rng.uniform(0.01, 3, SHAPE) if scaled else None,
    )  # fmt: skip
    given = X.astype(dtype)
    pair, feeds = forward.fed(given, rows)
    of_graph = pair.filled(feeds, (count, *SHAPE), dtype).numpy()
    made = made_rows(given, rows, dtype)
    assert made.dtype == dtype
    assert made.flags.c_contiguous
    assert_array_equal(made, of_graph)
    assert not np.array_equal(made, given[rows.sample])


@pytest.mark.parametrize("grid", [None, (-1.0, 0.5, 0.25)], ids=["anywhere", "on a grid"])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("sample", [[3, 3, 3, 3, 3, 3], [4, 4, 0, 0, 0, 1]], ids=["of one sample", "of several"])
def test_moves_as_drawn_are_those_of_the_graph(forward, monkeypatch, sample, dtype, grid):
    """Stretches along moves side by side, and one that goes back; held against plain arithmetic too."""
    dtype, count = np.dtype(dtype), len(sample)
    wide = np.dtype(np.float64) if dtype == np.float64 else np.dtype(np.float32)
    monkeypatch.setattr(forward, "_dtype", dtype)
    monkeypatch.setattr(forward, "_wide", wide)
    monkeypatch.setattr(forward, "_pairs", {})
    values = np.random.default_rng(1).standard_normal((4, 12)).astype(np.float32)
    of = np.array([1, 2, 3, 0, 1, 1])
    rows = Rows(np.array(sample, np.int64), Moves(values, of), np.ones(count), grid=grid)
    given = X.astype(dtype)
    pair, feeds = forward.fed(given, rows)
    assert len(feeds["moves"]) == 4
    of_graph = pair.filled(feeds, (count, *SHAPE), dtype).numpy()
    made = made_rows(given, rows, dtype)
    assert made.dtype == dtype
    assert_array_equal(made, of_graph)
    plain = given[sample].astype(wide) + values[of].reshape(count, *SHAPE)
    if grid is not None:
        plain = np.clip(np.rint((plain - grid[0]) / wide.type(grid[2])) * wide.type(grid[2]) + grid[0], grid[0], grid[1])
        assert set(np.unique(made).tolist()) <= {-1, -0.75, -0.5, -0.25, 0, 0.25, 0.5}
    assert_array_equal(made, plain.astype(dtype))


def test_the_model_answers_moves_as_drawn_the_same_in_both_ways(forward, monkeypatch):
    values = np.random.default_rng(2).standard_normal((8, 12)).astype(np.float32)
    rows = Rows(np.repeat([0, 2], 8), Moves(values, np.r_[:8, :8]), np.ones(16))
    given = X.astype(np.float32).reshape(5, 12)
    monkeypatch.setattr(forward, "_shape", (12,))
    monkeypatch.setattr(forward, "_pairs", {})
    (here,) = forward.stream(given, [rows])
    assert_array_equal(here, forward.outputs(given[rows.sample] + values[rows.v.of]))
    monkeypatch.setattr(forward, "_makes", False)
    (there,) = forward.stream(given, [rows])
    assert_array_equal(here, there)
    some = taken(rows, np.array([15, 3]))
    (z,) = forward.stream(given, [some])
    assert_array_equal(z, here[[15, 3]])


def test_float16_rows_beyond_its_range_are_infinite():
    rows = Rows(np.zeros(1, np.int64), np.ones((1, 12), np.int8), np.array([1e5]))
    assert np.isinf(made_rows(X.astype(np.float16), rows, np.dtype(np.float16))).all()


def test_the_cpu_needs_no_session_for_rows(forward, monkeypatch):
    monkeypatch.setattr(BoundPair, "filled", None)
    monkeypatch.setattr(forward, "_shape", (12,))
    flat = X.astype(np.float32).reshape(5, 12)
    rows = Rows(np.array([0, 1]), np.ones((2, 12), np.int8), np.array([0.1, 0.2]))
    (z,) = forward.stream(flat, [rows])
    assert_array_equal(z, forward.outputs(made_rows(flat, rows, np.dtype(np.float32))))


@pytest.mark.parametrize(("dtype", "here"), [(np.float32, True), (np.float16, True), (np.uint8, False), (np.int64, False)])
def test_other_types_are_left_to_the_graph(dtype, here):
    assert makes(np.dtype(dtype)) is here


def test_rows_of_several_short_calls_are_made_at_once(forward, monkeypatch):
    calls, made = [], []
    call, make = OnnxForward._call, forward_module.made_rows
    monkeypatch.setattr(OnnxForward, "_call", lambda self, Y, of: (calls.append(len(Y)), call(self, Y, of))[1])
    monkeypatch.setattr(forward_module, "made_rows", lambda *given: (made.append(len(given[1].sample)), make(*given))[1])
    monkeypatch.setattr(forward, "_shape", (12,))
    monkeypatch.setattr(forward.finder, "batch", 3)
    flat, jacobian = X.astype(np.float32).reshape(5, 12), DifferenceJacobian(forward, Rademacher(0), scheme="forward", step=0.1)
    requests = [Request(Sample(k, k), 0, 20) for k in range(5)]
    monkeypatch.setattr(forward, "_row_seconds", 1e-6)
    found = [e.plus for e in jacobian.ends(flat, np.zeros((5, 3, 1)), requests)]
    assert made == [30, 30, 30, 10]  # whole calls, at most 32 rows
    assert calls == [3] * 33 + [1]
    monkeypatch.setattr(forward_module, "_STRETCH_SECONDS", 0.0)  # long calls: an audit can end after each
    made.clear()
    calls.clear()
    again = [e.plus for e in jacobian.ends(flat, np.zeros((5, 3, 1)), requests)]
    assert made == calls == [3] * 33 + [1]
    assert_array_equal(np.stack(found), np.stack(again))
