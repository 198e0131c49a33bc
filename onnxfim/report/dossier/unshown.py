"""What a dossier of an audit does not show, in plain words."""

from __future__ import annotations

from onnxfim.record.audit import Audit
from onnxfim.report.guarantee_words import shown_brackets

#: What none shows; sentences, each whole.
UNSHOWN = (
    "It is no certificate and no declaration of conformity: whether a requirement is met is for provider and assessor to say.",
    "It is about the samples that were audited. Other inputs, or a population that they do not stand for, may behave differently.",
    "An attack that found nothing is no guarantee: a stronger one may find a change that is smaller than any found here.",
    "It does not measure a shift of the data: other sensors, places, times, weather, corruptions, rotations or languages.",
    "It says nothing of cybersecurity beyond small changes of the input: not of poisoned data, stolen models or access.",
    "It says nothing of fairness beyond the values by class, nor of training data, human oversight, or risks of the intended use.",
    "It audits one file as it is. What is done before and after it, other models of the system and later versions are not in it.",
    "Nobody has signed it: the hashes show that files were not changed since, and not who made them.",
)

_NO_PROOF = "No distance is guaranteed sample by sample (--bracket, --verifier): what is told of distances was found or estimated."
_NO_NOISE = "Nothing is shown of random noise (--noise): the moves that were tried are worst ones, few of each sample."
_SMOOTHED = "The certificate by smoothing is of the smoothed classifier; of the file alone it guarantees nothing."
_CONVERTED = "A verifier decides about its own conversion of the file, in its own arithmetic; no proof of its own was checked here."
_ARITHMETIC = "Guaranteed distances are of the function that the file describes, in exact arithmetic: no rounding is in them."


def unshown(audit: Audit) -> tuple[str, ...]:
    """What the dossier of ``audit`` does not show: what was run is no longer among it, but its limits are."""
    v = audit.verifier
    guaranteed = any(b.low.value for b in shown_brackets(audit)) or (v is not None and v.unsat > v.disbelieved)
    told = [
        _ARITHMETIC if guaranteed else _NO_PROOF if audit.decides else "",
        "" if audit.noise or not audit.decides else _NO_NOISE,
        _SMOOTHED if audit.smoothing else "",
        _CONVERTED if v is not None else "",
    ]
    return (*UNSHOWN, *(text for text in told if text))
