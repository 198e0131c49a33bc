"""The helpers of this folder are imported by their bare names."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def rng():
    """A generator from a fixed seed."""
    return np.random.default_rng(0)
