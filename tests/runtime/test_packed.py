"""Directions as packed bits: the same rows, bit for bit, as from one byte per coordinate."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from onnxfim.runtime.callable_forward import CallableForward
from onnxfim.runtime.failures import OutOfMemory
from onnxfim.runtime.forward import OnnxForward
from onnxfim.runtime.hardware import Hardware
from onnxfim.runtime.perturb import perturbation_graph
from onnxfim.runtime.rows import Coordinates, Rademacher, Rows, Signs, dither_noise, joined_directions, taken
from onnxfim.runtime.session import open_session, run
from onnxfim.slopes.differences import DifferenceJacobian, Request, Sample
from tests.support.models import Mlp

# All remainders of a byte and of a word of 64 bits, and both sides of each.
SIZES = [*range(1, 18), *range(62, 67), 127, 128, 129, 3 * 31 * 33]
ROWS = 6


def bytes_of(seed, index, start, count, d):
    """Rademacher directions from the definition: bit k of the drawn words, from the highest of each byte, is coordinate k."""
    words = -(-d // 64)
    generator = np.random.PCG64(np.random.SeedSequence([seed, index]))
    generator.advance(start * words)
    drawn = generator.random_raw(count * words).astype("<u8").tobytes()
    rows = [drawn[i * words * 8 : (i + 1) * words * 8] for i in range(count)]
    return np.array([[1 if row[k // 8] >> (7 - k % 8) & 1 else -1 for k in range(d)] for row in rows], np.int8)


class TestSigns:
    @pytest.mark.parametrize("d", SIZES)
    def test_bytes_are_those_of_the_definition(self, d):
        truth = bytes_of(3, 7, 2, ROWS, d)
        assert_array_equal(Rademacher(3).block(7, 2, ROWS, d), truth)
        signs = Rademacher(3).signs(7, 2, ROWS, d)
        assert_array_equal(np.asarray(signs), truth)
        assert np.asarray(signs).dtype == np.int8
        assert signs.bits().shape == (ROWS, -(-d // 8))

    def test_rows_of_a_batch_are_cut_and_taken_alike(self):
        signs = Rademacher(3).signs(7, 0, 4, 21)[np.array([0, 0, 1, 1, 3])]
        whole = np.asarray(signs)
        assert len(signs) == len(whole) == 5
        for which in (slice(1, 4), np.array([4, 4, 0]), np.array([True, False, True, False, True])):
            assert_array_equal(np.asarray(signs[which]), whole[which])
            assert_array_equal(np.unpackbits(signs[which].bits(), axis=1, count=21), whole[which] > 0)
        assert_array_equal(np.full((5, 1), 2.0) * signs, 2.0 * whole)  # whoever takes them for an array is right

    def test_stretches_are_joined(self):
        parts = [Rademacher(3).signs(i, 0, 3, 21)[np.array([0, 2, 2])] for i in (1, 2)]
        joined = joined_directions(parts)
        assert isinstance(joined, Signs)
        assert_array_equal(np.asarray(joined), np.concatenate([np.asarray(p) for p in parts]))
        mixed = joined_directions([parts[0], Coordinates().block(0, 0, 2, 21)])
        assert isinstance(mixed, np.ndarray)
        assert_array_equal(mixed[:3], np.asarray(parts[0]))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("dithered", [False, True])
def test_the_graph_makes_the_same_rows_of_bits_as_of_bytes(dtype, shared, scaled, dithered):
    dtype = np.dtype(dtype)
    wide = np.float64 if dtype == np.float64 else np.float32
    rng = np.random.default_rng(0)
    for d in SIZES[:-1]:
        signs = Rademacher(1).signs(0, 0, ROWS, d)
        feeds = {
            "base": rng.standard_normal((1 if shared else 3, d)).astype(wide),
            "scale": rng.standard_normal((ROWS, 1)).astype(wide),
        }
        if not shared:
            feeds["sample"] = rng.integers(0, 3, ROWS)
        if dithered:
            feeds |= {"w": dither_noise((1, 2), 0, ROWS, d)[:, 0], "dither": np.array([0.01], wide)}
        if scaled:
            feeds["field"] = rng.uniform(0.01, 3, (1, d)).astype(wide)
        made = []
        for packed, v in ((False, np.asarray(signs)), (True, signs.bits())):
            graph = perturbation_graph((d,), dtype, dithered=dithered, shared=shared, scaled=scaled, packed=packed)
            session, _ = open_session(graph, Hardware(("cpu",)), threads=1)
            made += run(session, ["rows"], {**feeds, "v": v})
        assert made[0].dtype == dtype
        assert_array_equal(made[1], made[0])
        assert len(np.unique(made[0], axis=0)) == ROWS or d < 8


def test_rows_of_images_keep_their_shape():
    shape, signs = (3, 31, 33), Rademacher(1).signs(0, 0, ROWS, SIZES[-1])
    session, _ = open_session(perturbation_graph(shape, np.dtype(np.float32), dithered=False, shared=True, packed=True))
    feeds = {"base": np.zeros((1, *shape), np.float32), "scale": np.ones((ROWS, 1, 1, 1), np.float32), "v": signs.bits()}
    assert_array_equal(run(session, ["rows"], feeds)[0], np.asarray(signs).reshape(ROWS, *shape))


MLP = Mlp.draw(3, 21)


def opened(path, *, packs, **options):
    forward = OnnxForward(
        path, input_name="x", output_name="z", shape=(21,), dtype=np.dtype(np.float32), hardware=Hardware(("cpu",)), **options
    )
    assert not forward.packs, "rows for a processor stay bytes"
    forward.packs = packs
    return forward


def differences(forward, X, scheme):
    jacobian = DifferenceJacobian(forward, Rademacher(0), scheme=scheme, step=1e-2, dither=1e-3)
    requests = [Request(Sample(i, i), i, 9) for i in range(len(X))]
    return np.concatenate([e.plus - e.minus for e in jacobian.ends(X, forward.outputs(X), requests)])


class TestForward:
    @pytest.mark.parametrize("scheme", ["forward", "central", "dithered"])
    @pytest.mark.parametrize("batch", [1, 7, 64])
    def test_outputs_are_the_same(self, saved, scheme, batch):
        file, X = saved(MLP.onnx()), MLP.samples(5)
        found = [differences(opened(file, packs=packs, batch=batch), X, scheme) for packs in (False, True)]
        assert_array_equal(*found)
        assert np.abs(found[0]).max() > 0

    def test_bits_reach_the_graph(self, saved, monkeypatch):
        kinds = []
        pair = OnnxForward._pair
        monkeypatch.setattr(OnnxForward, "_pair", lambda self, *kind: (kinds.append(kind[-1]), pair(self, *kind))[1])
        file, X = saved(MLP.onnx()), MLP.samples(2)
        for packs in (False, True):
            kinds.clear()
            differences(opened(file, packs=packs, batch=8), X, "central")
            assert set(kinds) == ({True} if packs else set())  # without a device of its own NumPy makes the rows

    def test_coordinates_stay_bytes(self, saved):
        forward, X = opened(saved(MLP.onnx()), packs=True, batch=8), MLP.samples(1)
        (ends,) = DifferenceJacobian(forward, Coordinates(), scheme="central", step=1e-3).ends(
            X, forward.outputs(X), [Request(Sample(0, 0), 0, 21)]
        )
        slopes = (ends.plus - ends.minus)[:, :, 0] / ends.h
        np.testing.assert_allclose(slopes, MLP.jacobian(X[0].astype(float)).T, atol=2e-3)  # float32 outputs over a step of 1e-3

    def test_halves_of_a_batch_that_memory_does_not_hold(self, saved, monkeypatch):
        file, X = saved(MLP.onnx()), MLP.samples(5)
        truth = differences(opened(file, packs=True, batch=4), X, "central")
        bound = OnnxForward._bound

        def small(self, X, rows, of):
            if len(rows.sample) > 4:
                raise OutOfMemory("model: ONNX Runtime ran out of memory (bad_alloc).")
            return bound(self, X, rows, of)

        monkeypatch.setattr(OnnxForward, "_bound", small)
        forward = opened(file, packs=True, batch=16)
        np.testing.assert_allclose(differences(forward, X, "central"), truth, atol=1e-6)  # a matrix product in another blocking
        assert forward.batch == 4, "a batch that was drawn before the halving does not halve it again"

    def test_a_function_gets_bytes(self):
        rows = Rows(np.array([0, 0]), Rademacher(0).signs(0, 0, 2, 21), np.array([1.0, -1.0]))
        forward = CallableForward(lambda X: X[:, :3], (21,), 3, dtype=np.float64, batch=2)
        X = np.zeros((1, 21))
        (z,) = forward.stream(X, [rows])
        assert_array_equal(z[:, :, 0], rows.scale[:, None] * np.asarray(rows.v)[:, :3])
        (part,) = forward.stream(X, [taken(rows, [1])])
        assert_array_equal(part, z[1:])
        (plain,) = forward.stream(X, [replace(rows, v=np.asarray(rows.v))])
        assert_array_equal(plain, z)
