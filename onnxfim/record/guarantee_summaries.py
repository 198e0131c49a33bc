"""What is guaranteed over all samples: brackets, noise, smoothing, a verifier."""

from __future__ import annotations

from dataclasses import dataclass, field

from onnxfim.record.decision import Aggregate
from onnxfim.record.guarantees import Norm
from onnxfim.record.limits import ALWAYS, AboveZero, Count, NotNegative, Part, Positive, closed


@closed
@dataclass(frozen=True)
class DecidedAt:
    """What is known of the samples at one length: guaranteed to keep their prediction, seen to lose it, or neither."""

    epsilon: NotNegative
    kept: Count
    lost: Count
    open: Count


@closed
@dataclass(frozen=True)
class BracketSummary:
    """The brackets of all samples in one norm.

    Attributes:
        norm: Their norm.
        units: What lengths are in, several of them.
        samples: Samples with a prediction.
        low, high: Medians of both ends over the samples, with intervals by order statistics.
        width: Median of ``high / low``; None where most have no such ratio.
        decided: Shares at a few lengths.
        contradictions: Samples whose guaranteed length is above that of a move that changed the prediction: an error of one of the
            two.
        first_order_outside, fisher_outside: Of samples that have the estimate and both ends, on how many it lies outside.
        first_order_tried, fisher_tried: How many these are.
    """

    norm: Norm
    units: str
    samples: Count
    low: Aggregate
    high: Aggregate
    width: NotNegative | None
    decided: tuple[DecidedAt, ...]
    contradictions: Count = field(default=0, metadata=ALWAYS)
    first_order_outside: Count = field(default=0, metadata=ALWAYS)
    first_order_tried: Count = field(default=0, metadata=ALWAYS)
    fisher_outside: Count = field(default=0, metadata=ALWAYS)
    fisher_tried: Count = field(default=0, metadata=ALWAYS)


@closed
@dataclass(frozen=True)
class NoiseSummary:
    """What noise does to the predictions of all samples.

    Attributes:
        noise: The noise, as it was asked for.
        units: What its size is in.
        stable: The probability that a stable sample keeps its prediction with, at least.
        confidence: Of all that is said here, at once.
        samples: Samples that were tried.
        stable_samples, unstable_samples: Those that are decided; the rest is open.
        share: Stable samples among these very samples: the value is the share that was found stable, ``high`` counts the open ones.
        population: The same of the population that they come from.
        tries: Rows in all.
        budget: Rows of a sample at most.
    """

    noise: str
    units: str
    stable: Part
    confidence: Part
    samples: Count
    stable_samples: Count
    unstable_samples: Count
    share: Aggregate
    population: Aggregate
    tries: Count
    budget: Positive


@closed
@dataclass(frozen=True)
class CertifiedShare:
    """The share of samples that the smoothed classifier gets right with a radius of at least ``radius``.

    ``low`` and ``high`` are its 95 % interval in the population that the samples are from; ``low`` is less by the probability that
    a certificate is wrong.
    """

    radius: NotNegative
    share: Part
    low: Part
    high: Part


@closed
@dataclass(frozen=True)
class SmoothingSummary:
    """The smoothed classifier over all samples: the class that noise gives most often, which is another than the file.

    Attributes:
        sigma: Standard deviation of the noise.
        units: What it and the radii are in, several of them.
        confidence: Of each sample's radius.
        samples: Samples that were tried.
        abstained: Those without a class.
        agrees: Samples whose smoothed class is the file's own prediction.
        accuracy: Of the smoothed classifier, abstentions counted as wrong; None without labels.
        clean_accuracy: Of the file itself on the same samples; None without labels.
        curve: Certified accuracy against the radius, at round radii from 0 on; without labels the share certified for the file's
            own prediction.
        labelled: Whether the curve is of accuracy.
        choosing: Rows that chose the class.
        budget: Rows that the bound rests on.
        caveat: What the certificate does not cover.
        median: Median radius with an interval by order statistics, 0 where it abstains or has another class than the curve counts;
            None where no sample was tried.
        average: Average of the same (ACR).
        reason: Why no sample was tried; None where one was.
    """

    sigma: AboveZero
    units: str
    confidence: Part
    samples: Count
    abstained: Count
    agrees: Count
    accuracy: Part | None
    clean_accuracy: Part | None
    curve: tuple[CertifiedShare, ...]
    labelled: bool
    choosing: Positive
    budget: Positive
    caveat: str = ""
    median: Aggregate | None = None
    average: NotNegative | None = None
    reason: str | None = None


@closed
@dataclass(frozen=True)
class VerifierSummary:
    """What a verifier was asked, and what it said.

    Attributes:
        command: As it was given.
        norm: Norm of the boxes.
        units: What their half-widths are in, several of them.
        samples: Samples that it was asked of.
        boxes: Boxes in all.
        sat, unsat, unknown, timeout, error: Their answers.
        not_followed: Counterexamples at which the audited file, as it ran, keeps its prediction.
        contradictions: Boxes said to hold no other prediction in which one was found.
        timeout_seconds: What a box may take.
        seconds: What all took, by the clock.
        reason: Why nothing, or nothing more, was asked; None where all was.
        model: Name of the model that was verified in the audited file's place: nothing is certified of the file then. None where
            the file itself was.
        model_sha256: Of the copy of it that the verifier was given.
        disbelieved: Boxes among ``unsat`` that are not taken as certificates.
        without_control: Samples with such boxes of which no control question could be asked.
        control_open: Samples with certificates whose control question was not decided.
    """

    command: str
    norm: Norm
    units: str
    samples: Count
    boxes: Count
    sat: Count
    unsat: Count
    unknown: Count
    timeout: Count
    error: Count
    not_followed: Count
    contradictions: Count
    timeout_seconds: NotNegative
    seconds: NotNegative
    reason: str | None = None
    model: str | None = None
    model_sha256: str | None = None
    disbelieved: Count = 0
    without_control: Count = 0
    control_open: Count = 0
