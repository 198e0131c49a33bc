"""Certificates held against an attack on the smoothed classifier, whose own strength is known where the classifier is linear."""

from __future__ import annotations

import numpy as np
import pytest

from onnxfim.auditing.run import audit
from tests.support.models import Linear
from tests.support.places import SAMPLES
from tests.support.smoothed_attack import SmoothedAttack, attacked_file


@pytest.fixture
def linear():
    model = Linear.draw(2, 12)

    def gradient(rows, labels):
        away = np.where(labels == 0, 1.0, -1.0)[:, None] * (model.W[1] - model.W[0])
        return model.logits(rows), away

    return model, SmoothedAttack(gradient, lambda rows: model.logits(rows).argmax(axis=1), 0.3)


def test_the_attack_finds_the_nearest_change_of_a_linear_classifier(linear):
    """Smoothed it is itself. Where d is above σ, at 1.2·d the class has a probability of at most Φ(−0.2), 42 %, which 2,000 rows
    tell from half; before the plane there is nothing to be found."""
    model, attack = linear
    X = model.samples(40)
    labels = model.logits(X).argmax(axis=1)
    w = model.W[1] - model.W[0]
    d = np.abs(X @ w + model.b[1] - model.b[0]) / np.linalg.norm(w)
    far = d > attack.sigma
    assert far.sum() > 8
    rng = np.random.default_rng(0)
    for factor, expected in ((0.95, False), (1.2, True)):
        delta = attack.moves(X[far], labels[far], factor * d[far], rng)
        found, lengths = attack.successes(X[far], labels[far], delta, rng)
        assert (found == expected).all()
        np.testing.assert_allclose(lengths, factor * d[far], rtol=1e-4)  # of rows in float32


@pytest.mark.slow
@pytest.mark.parametrize("name", ["digits_mlp", "digits_resnet_adv"])
def test_no_attack_within_a_certified_radius_succeeds(cpu, name):
    """At the radius itself, and at 3 times as much, where some attacks must succeed for this to say anything."""
    with np.load(SAMPLES / "digits.npz") as file:
        X, y = file["inputs"][:40], file["labels"][:40]
    found = audit(SAMPLES / f"{name}.onnx", X, y, cpu(replay=0, flip=False, bounds=False, certify=("smoothing:0.15",)))
    certificates = {s.index: s.smoothed[0] for s in found.samples if s.smoothed[0].prediction is not None}
    at = np.array(list(certificates))
    labels, radii = (np.array([getattr(c, field) for c in certificates.values()]) for field in ("prediction", "radius"))
    attack = attacked_file(SAMPLES / f"{name}.onnx", X, 0.15)
    rng = np.random.default_rng(1)
    assert len(at) > 20
    delta = attack.moves(X[at], labels, radii * (1 - 1e-6), rng)
    hit, lengths = attack.successes(X[at], labels, delta, rng)
    assert not hit.any()
    assert (lengths <= radii).all()
    hit, _ = attack.successes(X[at], labels, attack.moves(X[at], labels, 3 * radii, rng), rng)
    assert hit.any()
