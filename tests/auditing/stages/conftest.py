"""What tests of several stages share."""

from __future__ import annotations

import pytest

from onnxfim.auditing import guaranteeing


@pytest.fixture(scope="module")
def no_other_bounds():
    """No other bounds: those of a linear model are exact, and leave a verifier nothing to say."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(guaranteeing, "of_each", lambda way: [])
        yield
