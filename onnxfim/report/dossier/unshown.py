"""What no dossier of an audit shows, in plain words."""

from __future__ import annotations

#: Sentences, each whole.
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
