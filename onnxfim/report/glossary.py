"""The words of the field: what each means, and where a page first uses it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

from markupsafe import Markup, escape


@dataclass(frozen=True)
class Term:
    """A word of the field; ``pattern`` is a regular expression of how texts write it."""

    id: str
    name: str
    pattern: str
    definition: str


#: What is explained, longer words first where one holds another.
TERMS: tuple[Term, ...] = (
    Term(
        "standardised",
        "λ_max, standardised",
        r"standardised λ_max|λ_max, standardised",
        "λ_max for inputs whose features differ in scale: each feature is counted in its own standard deviations.",
    ),
    Term(
        "calibrated",
        "λ_max, calibrated",
        r"calibrated λ_max|λ_max, calibrated|calibrated values?",
        "λ_max of the same model once its logits are divided by the temperature, so that an over-confident model does not "
        "look robust. Compare models by this one.",
    ),
    Term(
        "lambda-max",
        "λ_max",
        "λ_max",
        "The largest eigenvalue of the Fisher information at one input: how fast, along the worst direction, a small "
        "change of the input moves the predicted distribution. A change of length ε moves it by about ½ λ_max ε² nats. "
        "Larger is more sensitive.",
    ),
    Term(
        "fisher",
        "Fisher information",
        "Fisher information",
        "The matrix F = Jᵀ C J that measures how a small change of the input moves the predicted distribution; J is the "
        "derivative of the outputs, C the covariance of the prediction.",
    ),
    Term(
        "worst-direction",
        "Worst direction",
        r"(?:worst|Fisher) direction",
        "The change of the input of length 1 that moves the predicted distribution most: the eigenvector of λ_max.",
    ),
    Term(
        "boundary-distance",
        "Boundary distance",
        "boundary distance",
        "How far the nearest other class is, if the model were linear around the sample (to first order). An estimate, no "
        "guarantee.",
    ),
    Term(
        "flip-radius",
        "Flip radius",
        "flip radius",
        "The smallest change along the directions that were tried after which the prediction was another one. It was "
        "measured, so it is an upper bound: a shorter way may exist.",
    ),
    Term(
        "decision-boundary",
        "Decision boundary",
        "decision boundary",
        "Where the model is undecided between two classes: crossing it changes the prediction.",
    ),
    Term(
        "nat",
        "Nat",
        r"nats?",
        "The unit of information with the natural logarithm: 1 nat is 1.44 bits.",
    ),
    Term(
        "kl",
        "KL divergence",
        r"KL(?: divergences?)?",
        "Kullback-Leibler divergence: how far the prediction after the change is from the one before, in nats; 0 where "
        "they are equal.",
    ),
    Term(
        "quadratic-form",
        "Quadratic form",
        r"quadratic form|the form",
        "The prediction ½ λ_max ε² of how far a change of length ε moves the distribution. It holds for changes that are "
        "small enough.",
    ),
    Term(
        "l2",
        "L2",
        "L2",
        "The Euclidean length of a change: the root of the sum of the squares of all its values.",
    ),
    Term(
        "linf",
        "L∞",
        "L∞",
        "The largest change of any single value.",
    ),
    Term(
        "interval",
        "Interval",
        r"95 % interval|interval",
        "Where the true value lies with the stated confidence, 95 % if nothing else is said, given what was sampled.",
    ),
    Term(
        "geometric-mean",
        "Geometric mean",
        "geometric mean",
        "The mean of the logarithms, turned back. Unlike the mean it is not carried by the few largest values.",
    ),
    Term(
        "p95",
        "95th percentile",
        r"95th percentile|p95",
        "Nineteen of twenty samples lie below it: the sensitive tail, without its extreme.",
    ),
    Term(
        "temperature",
        "Temperature",
        "temperature",
        "The number that the logits are divided by so that the model's confidence fits its accuracy. Above 1 the model is "
        "over-confident, below 1 under-confident.",
    ),
    Term(
        "confidence",
        "Confidence",
        r"mean confidence|confidence",
        "The probability that the model gives the class it predicts.",
    ),
    Term(
        "clean-accuracy",
        "Clean accuracy",
        "clean accuracy",
        "The share of right predictions on the unchanged samples.",
    ),
    Term(
        "robust-accuracy",
        "Robust accuracy",
        "robust accuracy",
        "The share of samples still predicted rightly after every change of at most ε that was tried. A stronger attack "
        "can only lower it.",
    ),
    Term(
        "attack",
        "Attack",
        r"attack(?:s|ed)?",
        "A search, by gradients, for the smallest change that makes the model err.",
    ),
    Term(
        "reference",
        "Reference classifiers",
        r"reference [\w -]{1,40}classifiers",
        "Known models that were audited once; their figures come with onnxfim. A place among them is a comparison, no grade.",
    ),
    Term(
        "guarantee",
        "Guarantee of the weights",
        r"weights guarantee",
        "A distance within which no change can flip a prediction, computed from the weights alone: a lower bound.",
    ),
    Term(
        "bracket",
        "Bracket",
        r"brackets?|two sides|both sides",
        "The two lengths between which the nearest change of a prediction lies: no shorter move changes it (guaranteed), and "
        "one of the longer length does (found).",
    ),
    Term(
        "certified-radius",
        "Certified radius",
        r"certified (?:radius|radii|distances?)|guaranteed distances?",
        "A length within which no change of the input changes the prediction: a lower bound, proved in exact arithmetic.",
    ),
    Term(
        "smoothed-classifier",
        "Smoothed classifier",
        r"smoothed classifiers?",
        "Another classifier made of the model: it answers with the class that the model gives most often under Gaussian noise. Its "
        "certificates say nothing of the model alone.",
    ),
    Term(
        "abstain",
        "Abstain",
        r"abstain(?:s|ed)?|abstentions?",
        "To give no class, where no class is shown to be the most frequent one under noise.",
    ),
    Term(
        "verifier",
        "Verifier",
        r"verifiers?",
        "A program that proves that no input of a box has another prediction, or finds one that has. It decides about its own "
        "conversion of the model.",
    ),
    Term(
        "counterexample",
        "Counterexample",
        r"counterexamples?",
        "An input that a verifier names, within a box, with another prediction. It is tried on the audited file.",
    ),
    Term(
        "clopper-pearson",
        "Clopper-Pearson interval",
        r"Clopper(?: and |-)Pearson",
        "An interval of a probability from how often something happened: right at its level or above for any probability.",
    ),
    Term(
        "exact",
        "Exact value",
        r"exact values?",
        "Computed from all directions: nothing was sampled, so only rounding is left of an error.",
    ),
    Term(
        "estimate",
        "Estimate",
        r"estimates?",
        "Computed from sampled directions; its interval tells how far off it may be.",
    ),
    Term(
        "upper-bound",
        "Upper bound",
        r"upper bounds?",
        "The true value is no larger.",
    ),
    Term(
        "lower-bound",
        "Lower bound",
        r"lower bounds?",
        "The true value is no smaller.",
    ),
    Term(
        "logit-sensitivity",
        "Logit sensitivity ‖J‖₂",
        r"logit sensitivity|‖J‖₂",
        "How fast the logits move along their own worst direction; the softmax behind them is left out.",
    ),
    Term(
        "trace",
        "Trace",
        "trace",
        "The sum of all eigenvalues of the Fisher information: the sensitivity in all directions together.",
    ),
    Term(
        "effective-rank",
        "Effective rank",
        "effective rank",
        "The trace over λ_max: about how many directions carry the sensitivity. 1 is a single one.",
    ),
    Term(
        "logits",
        "Logits",
        r"logits?",
        "The model's scores before the softmax makes probabilities of them.",
    ),
    Term(
        "softmax",
        "Softmax",
        "softmax",
        "What turns scores into probabilities that sum to 1.",
    ),
    Term(
        "saturated",
        "Saturated",
        r"saturat(?:ed|ion)",
        "So certain that the probabilities are almost 0 and 1: then λ_max is almost 0 although the boundary may be near.",
    ),
    Term(
        "gate",
        "Gate",
        r"gates?",
        "A limit that was set on a number, so that the audit can pass or fail.",
    ),
    Term(
        "baseline",
        "Baseline",
        "baseline",
        "An earlier audit that this one is compared with, sample by sample.",
    ),
    Term(
        "spectral-bound",
        "Spectral bound",
        r"spectral bound|Lipschitz constant",
        "What the weights alone allow: L, the product of the layers' gains, limits how far any change can grow on its way "
        "to the logits.",
    ),
    Term(
        "jackknife",
        "Jackknife",
        "jackknife",
        "An interval made by leaving out one part of the data after another.",
    ),
    Term(
        "spearman",
        "Rank correlation",
        r"rank correlations?|Spearman",
        "Whether two measures order the samples alike: 1 where they agree, −1 where one is the reverse of the other.",
    ),
    Term(
        "epsilon",
        "ε",
        "ε",
        "The length of a change of the input.",
    ),
)


@dataclass
class Explainer:
    """Sets a page's texts, and links the first use of each word to its place in the glossary.

    It is made for one page, which calls it in the order of its texts; ``met`` are the words that were used by then. Without a
    glossary (``active`` is False) it only sets symbols.
    """

    active: bool = True
    _met: dict[str, Term] = field(default_factory=dict)

    def __call__(self, text: str) -> Markup:
        """The text, escaped, with λ_max set with a subscript and words that were not met before linked."""
        parts, at = [], 0
        for start, end, term in self._new(text) if self.active else ():
            parts.append(with_symbols(text[at:start]))
            parts.append(
                Markup('<dfn><a class="term" href="#term-{}" title="{}">{}</a></dfn>').format(
                    term.id, term.definition, with_symbols(text[start:end])
                )
            )
            at = end
        parts.append(with_symbols(text[at:]))
        return Markup("").join(parts)

    def _new(self, text: str) -> list[tuple[int, int, Term]]:
        """First uses of words in the text, in order, none within another; from here on they count as met."""
        found: list[tuple[int, int, Term]] = []
        for term, pattern in self._patterns:
            if term.id in self._met:
                continue
            for match in pattern.finditer(text):
                start, end = match.span()
                if all(end <= a or start >= b for a, b, _ in found):
                    found.append((start, end, term))
                    self._met[term.id] = term
                    break
        return sorted(found, key=lambda one: one[0])

    @cached_property
    def _patterns(self) -> Sequence[tuple[Term, re.Pattern[str]]]:
        return [(t, re.compile(rf"(?<![\w.])(?:{t.pattern})(?![\w]|[._]\w)", re.IGNORECASE)) for t in TERMS]

    @property
    def met(self) -> tuple[Term, ...]:
        """The words that were used so far, by name."""
        return tuple(sorted(self._met.values(), key=lambda t: t.name.casefold()))

    @property
    def summary(self) -> str:
        """How many words the glossary explains."""
        return f"{len(self._met)} words of this page, explained"


def with_symbols(text: str) -> Markup:
    """The text, escaped, with λ_max set with a subscript."""
    named = re.sub(r"\blambda_max\b(?![._]\w)", "λ_max", text)
    return Markup(escape(named).replace("λ_max", Markup("λ<sub>max</sub>")))
