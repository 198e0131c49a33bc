"""Where things lie: the repository, its sample models, and the models beside it that are not part of it."""

from __future__ import annotations

from pathlib import Path

import pytest

SUPPORT = Path(__file__).resolve().parent
ROOT = Path(__file__).resolve().parents[2]
SAMPLES = ROOT / "sample_models"
SHARED = ROOT.parent / "shared"
MODELS = SHARED / "models"
MORE_MODELS = SHARED / "models_more"
CASES = SHARED / "cases"

#: For tests that read models which are not part of the repository.
needs_models = pytest.mark.skipif(
    not MODELS.is_dir(), reason=f"{MODELS} is not there: real trained models lie beside the repository"
)
