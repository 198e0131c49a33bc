"""The fixed words and signs of every format: one table for each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from onnxfim.record.decision import Level, Outcome, Verdict

VERDICT_WORDS: Mapping[Verdict, str] = {"measured": "Measured", "pass": "Pass", "fail": "Fail", "inconclusive": "Inconclusive"}
VERDICT_SIGNS: Mapping[Verdict, str] = {"measured": "ℹ️", "pass": "✅", "fail": "❌", "inconclusive": "⚠️"}
#: The look of a gate: that of a finding of this level.
VERDICT_LEVELS: Mapping[Outcome, str] = {"pass": "pass", "fail": "error", "inconclusive": "warning"}
#: Levels of findings, worst first.
LEVEL_WORDS: Mapping[Level, str] = {"error": "Error", "warning": "Warning", "note": "Note"}
NORM_WORDS: Mapping[str, str] = {"l2": "L2", "linf": "L∞"}
FAMILY_WORDS: Mapping[str, str] = {
    "mlp": "MLP",
    "vgg": "VGG-like",
    "resnet": "ResNet-like",
    "densenet": "DenseNet-like",
    "transformer": "Transformer",
    "recurrent": "Recurrent",
    "hybrid": "Hybrid",
    "unknown": "Unknown",
}
#: Samples of the replay, by their place in the ranking.
ROLE_WORDS: Mapping[str, str] = {"worst": "Most sensitive", "median": "In the middle", "best": "Least sensitive"}


@dataclass(frozen=True)
class Statement:
    """A heading or a question with its answer."""

    title: str
    text: str


@dataclass(frozen=True)
class Source:
    """Where a part of the method was published."""

    what: str
    reference: str


#: What the number does not say.
LIMITS = (
    Statement(
        "Local", "It is measured at the given inputs. It says nothing about other inputs, nor about changes that are not small."
    ),
    Statement(
        "L2 and second order",
        "It describes small changes of a given L2 size by the curvature at the input. Rotations, blur, other norms and large "
        "steps are other questions.",
    ),
    Statement(
        "Not a certificate",
        "It is an estimate with an interval. A guarantee over a whole neighbourhood needs a proof, not samples.",
    ),
    Statement(
        "Saturation and temperature",
        "Where the model is certain, λ_max falls towards zero although no decision moved, so an over-confident model looks "
        "robust. The calibrated value takes one temperature out; the boundary distance does not depend on it at all.",
    ),
    Statement(
        "Units",
        "It is per squared unit of the input. Scaling the input by a divides it by a²: compare two models only in the same units.",
    ),
    Statement(
        "Mean and median",
        "The mean tracks vulnerability; it is carried by few samples. The median of a saturated model is close to zero.",
    ),
)

#: Where the method was published.
SOURCES = (
    Source(
        "The measure",
        "Zhang, Li, Wang, Wang, Jin (2026), Measuring Model Robustness via Fisher Information, arXiv:2606.04767.",
    ),
    Source(
        "The Fisher information of the input as a measure of attack",
        "Zhao et al. (2019), The Adversarial Attack and Detection under the Fisher Information Metric, AAAI 33.",
    ),
)

#: Where a temperature is from.
TEMPERATURE_SOURCES = (
    Source("Temperature", "Guo, Pleiss, Sun, Weinberger (2017), On Calibration of Modern Neural Networks, ICML."),
)

#: Where intervals of sketches are from.
SKETCH_SOURCES = (Source("Jackknife intervals", "Miller (1974), The Jackknife: A Review, Biometrika 61(1)."),)

#: Where what is guaranteed, and with which confidence, is from.
BOUND_SOURCES = (
    Source(
        "Bounds around a sample",
        "Zhang, Weng, Chen, Hsieh, Daniel (2018), Efficient Neural Network Robustness Certification with General Activation "
        "Functions, NeurIPS.",
    ),
)
NOISE_SOURCES = (
    Source(
        "Intervals of shares",
        "Clopper, Pearson (1934), The Use of Confidence or Fiducial Limits Illustrated in the Case of the Binomial, "
        "Biometrika 26(4).",
    ),
)
SMOOTHING_SOURCES = (
    Source(
        "The smoothed classifier",
        "Cohen, Rosenfeld, Kolter (2019), Certified Adversarial Robustness via Randomized Smoothing, ICML.",
    ),
)

#: Where its attacks were.
ATTACK_SOURCES = (
    Source(
        "Attacks that masked gradients mislead",
        "Croce, Hein (2020), Reliable Evaluation of Adversarial Robustness with an Ensemble of Diverse "
        "Parameter-free Attacks, ICML.",
    ),
)
