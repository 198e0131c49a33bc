"""How a command line read a model and its samples, for another to read them in the same way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from onnxfim.record.limits import Count, Positive, closed


@closed
@dataclass(frozen=True)
class DataReading:
    """Paths of a model and of samples, and the options that say how these are read, by the names that the command line has.

    Attributes:
        model, data, labels_path: The paths, as they were given.
        inputs_key, labels_key: Keys of an archive.
        label_column, feature_columns: Columns of a table.
        class_names, feature_names: Names, or the file that holds them.
        mean, std, already_normalised, input_range, layout, resize, crop: What is done to raw values.
        input, output, shape: Which input is perturbed, which output is read, and sizes that the file leaves open.
        samples, seed: How many are read, and what draws them.
    """

    model: str
    data: str
    labels_path: str | None
    inputs_key: str
    labels_key: str
    label_column: str | None
    feature_columns: tuple[str, ...] | None
    class_names: str | None
    feature_names: str | None
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    already_normalised: bool
    input_range: tuple[float, ...] | None
    layout: Literal["NCHW", "NHWC"] | None
    resize: Positive | None
    crop: Positive | None
    input: str | tuple[str, ...] | None
    output: str | None
    shape: tuple[str, ...]
    samples: Positive | None
    seed: Count
