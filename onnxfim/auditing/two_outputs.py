"""The outputs of two models on the same samples: predictions, and how far the probabilities moved."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

from onnxfim.auditing.common_step import Candidate
from onnxfim.auditing.course import PlannedStage
from onnxfim.auditing.meter import Outlook, Report
from onnxfim.auditing.run import opened
from onnxfim.errors import InputError
from onnxfim.record.deployment import MovedOutput
from onnxfim.slopes.kinds import OutputReader

Array: TypeAlias = np.ndarray[Any, Any]

_STAGE = "comparing the outputs"


def two_outputs(first: Candidate, second: Candidate, progress: Report | None = None) -> tuple[tuple[MovedOutput, ...], int]:
    """Both models' outputs on every sample that both can take, and the forward passes spent.

    These are more samples than are audited, at a pass each: accuracy and agreement of predictions need many.

    Raises:
        OnnxFimError: a model that cannot be opened, or models that decide between other classes or take other inputs.
    """
    contexts = [opened(c.model, c.inputs, None, c.settings, progress, None) for c in (first, second)]
    names = [c.subject.info.name for c in contexts]
    sizes = [(c.subject.info.num_outputs, c.subject.info.positions) for c in contexts]
    shapes = [c.X.shape[1:] for c in contexts]
    if shapes[0] != shapes[1]:
        raise InputError(
            f"{names[1]}: samples of shape {shapes[1]}, expected {shapes[0]} as of {names[0]}. Compare models of the same input."
        )
    if sizes[0] != sizes[1]:
        words = [f"{k} outputs" + (f" at {p} positions" if p > 1 else "") for k, p in sizes]
        raise InputError(
            f"{names[1]}: {words[1]}, expected {words[0]} as of {names[0]}: the models decide between other classes. Compare "
            "models of the same task."
        )
    at = [{int(i): k for k, i in enumerate(c.samples.indices)} for c in contexts]
    shared = sorted(at[0].keys() & at[1].keys())
    positions = [[places[i] for i in shared] for places in at]
    z = []
    for c, some in zip(contexts, positions, strict=True):
        c.meter.plan([PlannedStage(_STAGE, len(some), unit="samples")], Outlook("outputs", c.provider, len(some), sure=False))
        c.meter.begins(_STAGE)
        c.say(_STAGE)
        z.append(c.forward.outputs(c.X[some], np.array(some, int)))
        c.meter.over()
    finite = np.isfinite(z[0]).all(axis=(1, 2)) & np.isfinite(z[1]).all(axis=(1, 2))
    good = np.flatnonzero(finite)
    readers = [c.reader for c in contexts]
    decided = [_predictions(r, outputs[good]) for r, outputs in zip(readers, z, strict=True)]
    variation, kl = _distances(readers, [outputs[good] for outputs in z])
    samples = contexts[0].samples
    found = []
    for n, row in enumerate(good):
        position = positions[0][row]
        label = None if samples.labels is None else int(samples.labels[position])
        far = None if variation is None else min(float(variation[n]), 1.0)
        apart = None if kl is None or not np.isfinite(kl[n]) else max(float(kl[n]), 0.0)
        found.append(MovedOutput(shared[row], samples.names[position], label, decided[0][n], decided[1][n], far, apart))
    return tuple(found), 2 * len(shared)


def _predictions(reader: OutputReader, outputs: Array) -> list[int | None]:
    if not reader.has_classes or outputs.shape[2] != 1:
        return [None] * len(outputs)
    return [int(c) for c in reader.predictions(outputs)]


def _distances(readers: list[OutputReader], outputs: list[Array]) -> tuple[Array | None, Array | None]:
    """Total variation and KL of each sample, averaged over positions, (n,) each; None where outputs are no class probabilities."""
    if any(r.family != "class probabilities" for r in readers):
        return None, None
    logs = [_log_probabilities(r, z) for r, z in zip(readers, outputs, strict=True)]
    p, q = (np.exp(a) for a in logs)
    variation = 0.5 * np.abs(p - q).sum(axis=1).mean(axis=1)
    with np.errstate(invalid="ignore"):
        terms = np.where(p > 0, p * (logs[0] - logs[1]), 0.0)
    return variation, terms.sum(axis=1).mean(axis=1)


def _log_probabilities(reader: OutputReader, outputs: Array) -> Array:
    """Logarithms of the probabilities, (n, K, P); minus infinity where one is 0."""
    if reader.reads_logits:
        top = outputs - outputs.max(axis=1, keepdims=True)
        return np.asarray(top - np.log(np.exp(top).sum(axis=1, keepdims=True)))
    p = reader.probabilities(outputs)
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(p / p.sum(axis=1, keepdims=True)))
