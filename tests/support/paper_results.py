"""A results.json of planted truth: models whose robustness is known, and measures that follow it or do not."""

from __future__ import annotations

from typing import Any

import numpy as np

FAMILIES = {"densenet": 0.0, "vgg": -0.4, "resnet": -0.8, "vit": -1.2, "mlp": -0.2}  # planted ln of robustness
TRAININGS = {"standard": 0.0, "pgd": 1.0, "trades": 1.2}


def entry(rng: np.random.Generator, data: str, family: str, training: str, seed: int, **how: Any) -> dict[str, Any]:
    """One model; ``raw`` and ``calibrated`` say how strongly each λ follows robustness (1 wholly, 0 not, −1 against)."""
    samples, strength = how.get("samples", 40), how.get("strength", 0.0 if training == "standard" else 1.0)
    block, size = how.get("block", "grid"), how.get("size", "medium")
    level = (
        FAMILIES[family] * how.get("families", 1.0)
        + TRAININGS[training] * (strength if training == "pgd" else 1)
        + 0.05 * rng.standard_normal()
    )
    hard = np.random.default_rng(7).standard_normal(samples)  # the same samples for all models
    margin = level + 0.3 * hard + 0.1 * rng.standard_normal(samples)
    right = (np.arange(samples) > 1).astype(int)
    other = rng.standard_normal()

    def sensitivity(follows: float) -> list[float]:
        own = follows * (margin - level) + follows * level + (1 - abs(follows)) * other
        return np.exp(-2 * own + 0.2 * rng.standard_normal(samples)).tolist()

    raw = sensitivity(how.get("raw", 1.0))
    twin = "-int8" if block == "twin" else ""
    bound = how.get("bound", -level)
    return {
        "name": f"{data}-{family}-{size}-{training}-{strength:g}-{block}-{seed}{twin}", "data": data, "family": family, "size": size, "training": training,
        "strength": strength, "seed": seed, "block": block, "parent": how.get("parent"), "failed": None,
        "train": {"accuracy": how.get("accuracy", 0.9), "parameters": 1000, "seconds": 1.0},
        "audit": {
            "temperature": float(np.exp(0.1 * rng.standard_normal())), "mean_confidence": 0.9, "log10_lipschitz": bound / 2, "log10_fisher_bound": bound, "seconds": 2.0,
            "samples": {
                "right": right.tolist(), "lambda_raw": raw, "lambda_calibrated": sensitivity(how.get("calibrated", 1.0)),
                "boundary": np.exp(margin).tolist(), "flip": np.exp(margin).tolist(), "jacobian": np.exp(-margin).tolist(), "confidence": rng.random(samples).tolist(),
            },
            "published": {"black": (0.1 * np.array(raw)).tolist(), "white": (0.6 * np.array(raw)).tolist()},
        },
        "attack": {
            "epsilons": [0.05, 0.1, 0.2], "pgd": [0.9, 0.6, 0.3], "ensemble": [float(np.clip(0.5 + 0.2 * level - e, 0, 1)) for e in (0.0, 0.1, 0.2)],
            "l2": (np.exp(margin + 0.05 * rng.standard_normal(samples)) * right).tolist(), "missed": [0, 0, 0], "seconds": 3.0,
            "corruptions": {"blur": [0.8 + 0.02 * level, 0.7 + 0.02 * level]}, "shift": {"elsewhere": [0.5 + 0.02 * level]},
        },
    }  # fmt: skip


def planted(*, seeds: int = 3, data_sets: tuple[str, ...] = ("digits", "pneumonia"), **how: Any) -> dict[str, Any]:
    """Families by trainings by seeds on each data set, a block of strengths, int8 twins, and one that failed."""
    rng = np.random.default_rng(0)
    models = []
    for data in data_sets:
        main = [entry(rng, data, f, t, s, **how) for s in range(seeds) for f in FAMILIES for t in TRAININGS]
        models += main
        models += [
            entry(rng, data, f, "pgd", s, strength=e, block="strength", **how)
            for s in range(seeds)
            for f in ("mlp", "resnet")
            for e in (0.25, 0.5, 2.0)
        ]
        models += [entry(rng, data, m["family"], m["training"], 0, parent=m["name"], block="twin", **how) for m in main[:6]]
        models.append(failed(data))
    about = {"note": "planted", "train": 10, "test": 40, "side": 8, "classes": 2, "epsilon": 0.1, "deviation": 0.3}
    return {"schema": 1, "versions": {"python": "3"}, "data": dict.fromkeys(data_sets, about), "models": models}


def failed(data: str) -> dict[str, Any]:
    """A model whose training broke."""
    return {
        "name": f"{data}-broken", "data": data, "family": "vit", "size": "medium", "training": "pgd", "strength": 1.0, "seed": 9, "block": "grid", "parent": None,
        "failed": "train: ValueError: NaN", "train": {"failed": "ValueError: NaN", "seconds": 1.0}, "audit": None, "attack": None,
    }  # fmt: skip
