from __future__ import annotations

import numpy as np
import pytest

from onnxfim.served.terms import TOKEN
from tests.support.places import DEV, SAMPLES
from tests.support.serving import Model, onnx_function

DEV.load("urllib3")

MLP = SAMPLES / "digits_mlp.onnx"


@pytest.fixture(autouse=True)
def no_token(monkeypatch):
    monkeypatch.delenv(TOKEN, raising=False)


@pytest.fixture(scope="session")
def digits():
    """Samples of the digits (30, 1, 8, 8), and labels."""
    with np.load(SAMPLES / "digits.npz") as data:
        return data["inputs"][:30], data["labels"][:30]


@pytest.fixture(scope="session")
def mlp(digits):
    """The sample model as a server has it."""
    return Model(onnx_function(MLP), digits[0].shape[1:], 10)
