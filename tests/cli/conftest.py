from __future__ import annotations

import numpy as np
import pytest
from click.testing import CliRunner

from onnxfim.cli import main
from tests.support import models
from tests.support.models import Linear

MODEL = Linear.draw(4, 6)


@pytest.fixture
def command():
    """Run a command; the exit code and what it printed are in the result."""

    def run(*arguments):
        return CliRunner().invoke(main, [str(a) for a in arguments])

    return run


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working folder of its own, with a model and labelled data in it."""
    monkeypatch.chdir(tmp_path)
    models.save(MODEL.onnx(), tmp_path / "model.onnx")
    X = MODEL.samples(30)
    y = MODEL.logits(X).argmax(axis=1)
    y[:6] = (y[:6] + 1) % 4
    np.savez(tmp_path / "data.npz", inputs=X, labels=y)
    return tmp_path
