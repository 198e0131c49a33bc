"""Audits as they run on a provider with a device of its own: packed directions, and calls of few different shapes."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from onnxfim.auditing.run import audit
from onnxfim.gradients import differentiable
from onnxfim.record.settings import Settings
from onnxfim.report import render_json
from onnxfim.runtime import forward as forward_module
from onnxfim.runtime import session as session_module
from onnxfim.runtime.forward import OnnxForward
from onnxfim.runtime.shapes import padded_size, sizes
from tests.support.places import SAMPLES

DIGITS = np.load(SAMPLES / "digits.npz")
