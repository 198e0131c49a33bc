"""A verifier in an audit of a small linear model, of which every distance is known exactly: what its tests share."""

from __future__ import annotations

import shlex
import sys

import numpy as np

from onnxfim.record.settings import Settings
from tests.support.models import Linear
from tests.support.places import SUPPORT

FAKE = SUPPORT / "fake_verifier.py"
MODEL = Linear.draw(4, 6)
X = MODEL.samples(7)
WIDE = (-20.0, 20.0)  # a valid range that no box reaches
PRECISION = 0.3  # of most audits here: a box takes half a second


def fake(mode, result="-"):
    """The command of the verifier that answers in this way."""
    return f"{shlex.quote(sys.executable)} {shlex.quote(str(FAKE))} {shlex.quote(mode)} {{onnx}} {{vnnlib}} {{timeout}} {result}"


def settings(mode="exact", **options):
    """Of an audit that asks it about two samples."""
    options = {
        "providers": ("cpu",), "replay": 0, "bounds": False, "verifier_samples": 2, "verifier_precision": PRECISION,
        "attack_range": WIDE, **options,
    }  # fmt: skip
    return Settings(verifier=fake(mode), verifier_timeout=20.0, **options)


def radius(x, model=MODEL, scale=1.0):
    """The exact L∞ distance to another class, in raw units of which the model has ``scale``."""
    z = model.logits(x[None])[0]
    c = int(z.argmax())
    return min((z[c] - z[j]) / (np.abs(model.W[c] - model.W[j]) * scale).sum() for j in range(len(z)) if j != c)


def verified(found):
    """Samples that it was asked about."""
    return [s for s in found.samples if s.verified]


def closes_in(found, exact=radius, precision=PRECISION, *, data=X):
    """Whether each asked sample is certified up to its exact radius, as far as the bisection goes."""
    assert verified(found)
    for s in verified(found):
        r = exact(data[s.index])
        assert r / (1 + precision) * 0.998 <= s.certified_radius_linf.value < r  # 0.2 %: the first box, and float32's rounding
