"""How outputs are read: every output kind, and which of them a file's outputs are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from onnxfim.errors import ModelError
from onnxfim.graph.ends import Ending
from onnxfim.record.settings import Settings
from onnxfim.slopes.kinds.base import Array, OutputReader, Recognition, Takes
from onnxfim.slopes.kinds.detection import DetectionLogits, DetectionProbabilities
from onnxfim.slopes.kinds.embedding import Embedding
from onnxfim.slopes.kinds.gaussian import Gaussian
from onnxfim.slopes.kinds.rounded import of_few_digits, rounded_to
from onnxfim.slopes.kinds.sigmoid import SigmoidLogits, SigmoidProbabilities
from onnxfim.slopes.kinds.softmax import Probabilities, SoftmaxLogits

#: Every kind, in the order in which they are asked whether outputs are theirs. Of two readers with one name the first that fits
#: is taken.
KINDS: tuple[type[OutputReader], ...] = (
    SigmoidProbabilities, SigmoidLogits, Probabilities, Gaussian, Embedding, DetectionProbabilities, DetectionLogits, SoftmaxLogits,
)  # fmt: skip


def stand_alone(settings: Settings, end: Ending) -> bool:
    """Whether every output stands for itself, as far as the settings, or else the graph's end, tell it."""
    told = end.kind if settings.output_kind == "auto" else settings.output_kind
    return any(kind.independent for kind in KINDS if kind.name == told)


def taken_of(settings: Settings) -> Takes:
    """What of an output the settings ask to read: all of it where they name no kind."""
    return next((kind.takes for kind in KINDS if kind.name == settings.output_kind), "all")


def reader_of(settings: Settings, end: Ending, z: Array) -> tuple[OutputReader, Recognition]:
    """What the outputs are, and how that is known: from the settings, else from the graph's end and the values z (N, K, P).

    Raises:
        ModelError: they are of no kind that can be told from the file.
    """
    finite = np.isfinite(z).all(axis=(1, 2))
    z = z[finite] if finite.any() else z  # a sample that gives no number tells nothing
    if (rounded := of_few_digits(end, z, settings)) is not None:
        return rounded
    reader, known = _reader_of(settings, end, z)
    return reader, replace(known, unit=rounded_to(end, reader, z))


def _reader_of(settings: Settings, end: Ending, z: Array) -> tuple[OutputReader, Recognition]:
    """The same of outputs of which nothing shows that they were rounded."""
    if settings.output_kind != "auto":
        told = next(kind for kind in KINDS if kind.name == settings.output_kind and kind.fits(z))
        reader = told.of(settings)
        return reader, Recognition("as given by --output-kind", reader.doubt(z))
    for kind in KINDS:
        if (found := kind.recognise(end, z)) is not None:
            return kind.of(settings), found
    raise ModelError(
        "output has one value per sample, expected one per class. Say --output-kind sigmoid for a binary classifier whose "
        "output is a logit, or gaussian for a regression."
    )


__all__ = [
    "KINDS",
    "DetectionLogits",
    "DetectionProbabilities",
    "Embedding",
    "Gaussian",
    "OutputReader",
    "Probabilities",
    "Recognition",
    "SigmoidLogits",
    "SigmoidProbabilities",
    "SoftmaxLogits",
    "reader_of",
    "stand_alone",
    "taken_of",
]
