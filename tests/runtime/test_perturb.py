"""The little graph that makes rows on the device, against the same arithmetic in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose

from onnxfim.runtime.hardware import Hardware
from onnxfim.runtime.perturb import perturbation_graph
from onnxfim.runtime.session import open_session, run

SHAPES = [(5,), (1, 4, 4), (2, 3, 2, 2)]


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("dithered", [False, True])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_rows(shape, dtype, dithered, scaled):  # tolerance: one rounding to the row's own type
    dtype = np.dtype(dtype)
    wide = np.float64 if dtype == np.float64 else np.float32
    rng = np.random.default_rng(0)
    base = rng.standard_normal((3, *shape)).astype(wide)
    sample = np.array([2, 0, 0, 1, 2])
    v = rng.choice([-1, 0, 1], (5, *shape)).astype(np.int8)
    scale = rng.standard_normal(5).astype(wide)
    w = rng.integers(-127, 128, (5, *shape)).astype(np.int8)
    lift = (slice(None), *[None] * len(shape))
    feeds = {"base": base, "sample": sample, "scale": scale[lift], "v": v}
    field = rng.uniform(0.01, 3, shape).astype(wide) if scaled else np.ones(shape, wide)
    truth = base[sample].astype(np.float64) + scale[lift] * v * field.astype(np.float64)
    if dithered:
        feeds |= {"w": w, "dither": np.array([0.01], wide)}
        truth += np.float64(wide(0.01)) * w * field
    if scaled:
        feeds["field"] = field[None]
    session, _ = open_session(perturbation_graph(shape, dtype, dithered=dithered, scaled=scaled), Hardware(("cpu",)), threads=1)
    (rows,) = run(session, ["rows"], feeds)
    assert rows.dtype == dtype
    assert_allclose(rows.astype(np.float64), truth, atol=4 * np.finfo(dtype).eps, rtol=2 * np.finfo(dtype).eps)
