"""A BatchNormalization remembers the size of the inputs that it was trained on; no labels are needed to hold others against it."""

from __future__ import annotations

import re

import numpy as np
import pytest
from numpy.testing import assert_allclose

import onnxfim
from onnxfim.record.settings import Settings
from tests.support.gradient_nets import Net
from tests.support.places import SAMPLES

QUICK = Settings(samples=16, replay=0, bounds=False, flip=False, method="sketch", budget=24, max_budget=24, providers=("cpu",))


def found(audit):
    return next((f for f in audit.findings if f.id == "input-scaling"), None)


def unlabelled(change):
    with np.load(SAMPLES / "digits.npz") as data:
        X = data["inputs"][:64]
    return onnxfim.audit(SAMPLES / "digits_densenet.onnx", change(X).astype(np.float32), None, QUICK)


@pytest.mark.parametrize("change", [lambda x: x, lambda x: 1.2 * x, lambda x: x + 0.05])
def test_inputs_of_about_the_trained_size_raise_no_alarm(change):
    assert found(unlabelled(change)) is None


@pytest.mark.parametrize("factor", [255, 1 / 255, 5])
def test_inputs_in_other_units_are_told_without_labels(factor):
    audit = unlabelled(lambda x: factor * x)
    assert audit.verdict == "inconclusive"
    assert found(audit).level == "error"
    assert "first BatchNormalization" in found(audit).message
    told = re.search(r"is (\S+) times that one", found(audit).message)
    assert_allclose(float(told[1]), factor, rtol=0.15)  # of these few samples, in two digits


def test_a_batchnormalization_behind_a_nonlinear_node_says_nothing(saved):
    """Its input need not grow with the samples: the first one counts only behind linear nodes."""
    net = Net((3,))
    hidden = net.op("Tanh", net.op("Gemm", "x", np.eye(3)))
    normal = net.op("BatchNormalization", hidden, np.ones(3), np.zeros(3), np.zeros(3), np.full(3, 0.01))
    path = saved(net.model(net.op("Gemm", normal, np.eye(3))))
    X = np.random.default_rng(0).standard_normal((40, 3)).astype(np.float32)
    assert found(onnxfim.audit(path, X, None, QUICK)) is None
