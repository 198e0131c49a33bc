"""Clean accuracy, confidence and the temperature of a labelled data set."""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import numpy as np
from scipy.optimize import minimize_scalar

from onnxfim.record.audit import Calibration
from onnxfim.record.statistics import wilson
from onnxfim.slopes.kinds import OutputReader

Array: TypeAlias = np.ndarray[Any, Any]

_RANGE = (1e-2, 1e2)  # temperatures beyond are a sign that the likelihood has no minimum


def calibrate(reader: OutputReader, outputs: Array, labels: Array | None, given: float | None = None) -> Calibration:
    """Accuracy with its Wilson interval, and the temperature with the least negative log-likelihood.

    Args:
        reader: What the outputs are.
        outputs: Raw outputs, (N, K, P).
        labels: Class indices, (N,), or None.
        given: A temperature fitted elsewhere, taken as it is.

    Returns:
        ``temperature`` is None, with the reason, where it cannot be fitted: no labels, or a likelihood without a minimum (every
        prediction right, or none better than chance).

    Source: Guo et al. (2017), "On calibration of modern neural networks", ICML.
    """
    if reader.no_temperature is not None:
        return Calibration(None, None, None, None, None, None, None, reader.no_temperature)
    confidence = float(reader.confidences(outputs).mean())
    if labels is None or outputs.shape[2] != 1:
        why = None if given else "no labels were given" if labels is None else "labels per position are not supported"
        return Calibration(None, None, None, confidence, given, None, None, why)
    right = reader.predictions(outputs) == labels
    n = len(labels)
    accuracy = float(right.mean())
    low, high = wilson(int(right.sum()), n)

    def loss(log_t: float) -> float:
        return reader.log_loss(outputs, labels, math.exp(log_t))

    if given is not None:
        return Calibration(accuracy, low, high, confidence, given, loss(0.0), loss(math.log(given)))
    found = minimize_scalar(loss, bounds=(math.log(_RANGE[0]), math.log(_RANGE[1])), method="bounded", options={"xatol": 1e-6})
    temperature = math.exp(float(found.x))
    before, after = loss(0.0), float(found.fun)
    # At either end of the range the likelihood still improves: T is not a minimum there, but where the search was stopped.
    if not _RANGE[0] * 1.05 < temperature < _RANGE[1] / 1.05:
        why = (
            "every prediction is right, so that the likelihood grows without bound"
            if right.all()
            else "the likelihood has no minimum"
        )
        return Calibration(
            accuracy, low, high, confidence, None, before, None, f"the temperature cannot be fitted on {n} samples: {why}"
        )
    return Calibration(accuracy, low, high, confidence, temperature, before, after)
