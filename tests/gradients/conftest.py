from __future__ import annotations

import numpy as np
import pytest


@pytest.fixture
def rng():
    """A generator from a fixed seed."""
    return np.random.default_rng(0)
