"""Boosted trees, as onnxmltools writes them: piecewise constant, so that no slope is to be found."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import onnxmltools
import xgboost
from onnxmltools.convert.common.data_types import FloatTensorType
from sklearn.datasets import load_digits

from tests.exporters.recipe import Array, Made, Recipes

RECIPES = Recipes("onnxmltools")
_FOUND = load_digits()
X, Y = (_FOUND.data / 16).astype(np.float32), _FOUND.target


def _made(path: Path, convert: Callable[..., Any], model: Any, labels: Array) -> Made:
    model.fit(X, labels)
    proto = convert(model, initial_types=[("input", FloatTensorType([None, 64]))], target_opset=15)
    path.write_bytes(proto.SerializeToString())
    return Made({"inputs": X[::112][:16]}, labels[::112][:16].astype(np.int64))


for _name, _labels in (("xgb", Y), ("xgb_binary", (Y > 4).astype(np.int64))):
    RECIPES.add(_name, lambda path, labels=_labels: _made(
        path, onnxmltools.convert_xgboost, xgboost.XGBClassifier(n_estimators=8, max_depth=3), labels
    ))  # fmt: skip
RECIPES.add("lgbm", lambda path: _made(
    path, onnxmltools.convert_lightgbm, lightgbm.LGBMClassifier(n_estimators=8, num_leaves=8, verbose=-1), Y
))  # fmt: skip
