"""Properties of a few samples for verifiers, with the network that they are about: the files of a folder."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np

from onnxfim.auditing.instruments import scale_field
from onnxfim.auditing.measuring import measured, way_of
from onnxfim.auditing.meter import Report
from onnxfim.auditing.pictures import ranking
from onnxfim.auditing.run import grounded, opened
from onnxfim.auditing.stages.replay import replayed
from onnxfim.auditing.verified_network import VerifiedNetwork, network_of
from onnxfim.data import Samples
from onnxfim.errors import InputError
from onnxfim.graph.load import ModelFile
from onnxfim.record.audit import Audit
from onnxfim.record.audited_from import units_of_lengths
from onnxfim.record.sample import SampleResult
from onnxfim.record.settings import Settings
from onnxfim.runtime.threads import one_blas_thread
from onnxfim.slopes.flips import ValidRange, valid_range
from onnxfim.verifiers.properties import StaysInBox, Version, box_around

Array: TypeAlias = np.ndarray[Any, Any]

#: Names of the files beside the properties; the first is written last, and tells a folder that was written by this.
INSTANCES, NETWORK_FILE, ABOUT = "instances.csv", "network.onnx", "properties.json"
_PROPERTY = re.compile(r"sample_\d+_eps_[0-9.]+\.vnnlib")


class _FolderNames:
    """The names that files of such a folder have."""

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and (name in (INSTANCES, NETWORK_FILE, ABOUT) or _PROPERTY.fullmatch(name) is not None)


NAMES = _FolderNames()


@dataclass(frozen=True)
class PropertyFiles:
    """The files of a folder by name, and what they hold in a few words."""

    files: dict[str, str | bytes]
    samples: int
    epsilons: tuple[float, ...]
    units: str
    network: tuple[str, ...]


def property_files(
    model: ModelFile, samples: Samples, settings: Settings, *, epsilons: Sequence[float], count: int, version: Version,
    timeout: float,
    ranked: Audit | None = None, progress: Report | None = None,
) -> PropertyFiles:  # fmt: skip
    """The files for verifiers: the network, a property for each sample and half-width, and the list of instances.

    Args:
        model: The file.
        samples: Its samples.
        settings: How it is read; the seed and the method of the measure that ranks the samples.
        epsilons: Half-widths of the boxes, in raw input units where these are known.
        count: Samples at most, spread over the ranking: the worst, the middle and the best among them.
        version: Of VNN-LIB.
        timeout: Seconds that the list of instances gives to each.
        ranked: A saved audit of the same file and samples whose values rank them; None measures them first.
        progress: Called as that goes on.

    Raises:
        OnnxFimError: the model cannot be given to a verifier, no sample has a prediction, or the audit is of something else.
    """
    context = opened(model, samples, None, settings, progress, None)
    with one_blas_thread():
        if ranked is not None:
            _require_same(ranked, model, samples)
            results: list[SampleResult] = list(ranked.samples)
        else:
            ground, ended = grounded(context)
            if ended is not None:
                raise ended
            _, found = measured(way_of(ground))
            if found.interrupted:
                raise KeyboardInterrupt
            results = found.in_order
        network = network_of(context.subject, context.X)
    at = {context.index(p): p for p in range(len(context.X))}
    able = [r for r in results if r.prediction is not None and r.index in at]
    chosen = replayed(able, count) or able[:count]
    if not chosen:
        raise InputError("data: no sample has a prediction that a property could be about. Give other samples, or another output.")
    X = context.X[[at[r.index] for r in chosen]]
    predictions = network.predictions(network.scores(X))
    valid = valid_range(context.X, settings.attack_range, context.subject.limits)
    return _written(
        context.samples, model, settings, network, chosen, X, predictions, valid, epsilons, version, timeout, ranking(results)
    )


def _require_same(ranked: Audit, model: ModelFile, samples: Samples) -> None:
    if ranked.model.sha256 != model.sha256:
        raise InputError(
            f"--from: is an audit of {ranked.model.name} (sha256 {ranked.model.sha256[:12]}), but {model.path.name} has sha256 "
            f"{model.sha256[:12]}. Give the audit of this file, or drop --from."
        )
    if ranked.data.sha256 != samples.sha256:
        raise InputError(
            f"--from: is an audit of samples with sha256 {ranked.data.sha256[:12]}, but those given have {samples.sha256[:12]}. "
            "Give its "
            "--data, --samples and labels, or drop --from."
        )


def _written(
    samples: Samples, model: ModelFile, settings: Settings, network: VerifiedNetwork, chosen: Sequence[SampleResult], X: Array,
    predictions: Array, valid: ValidRange, epsilons: Sequence[float], version: Version,
    timeout: float,
    order: Sequence[SampleResult],
) -> PropertyFiles:  # fmt: skip
    shape = X.shape[1:]
    field = scale_field(settings.input_scale, shape)
    units = units_of_lengths(None, raw=settings.raw)
    scale: Array | float = 1.0 if field is None else field
    rank = {r.index: k for k, r in enumerate(reversed(order), 1)}
    files: dict[str, str | bytes] = {NETWORK_FILE: network.model.SerializeToString(deterministic=True)}
    rows, told = [], []
    for result, x, prediction in zip(chosen, X, predictions.tolist(), strict=True):
        about = StaysInBox(x, x, prediction, network.outputs, network.threshold, network.output_shape, network.dtype)
        for epsilon in epsilons:
            low, high = box_around(x, epsilon, scale=scale, low=valid.low.reshape(shape), high=valid.high.reshape(shape))
            name = f"sample_{result.index}_eps_{np.format_float_positional(epsilon, precision=8, trim='-')}.vnnlib"
            lines = (
                f"sample {result.index}: class {prediction} stays the same in a box of half-width {epsilon:.9g} {units},",
                "clipped to the valid range; sat is a point where another class is at least as probable",
            )
            files[name] = replace(about, low=low, high=high, about=lines).text(version)
            rows.append(f"{NETWORK_FILE},{name},{timeout:g}")
            told.append({
                "file": name, "sample": result.index, "label": result.label, "prediction": prediction, "epsilon": epsilon,
                "rank_by_sensitivity": rank.get(result.index),
            })  # fmt: skip
    about_all = {
        "model": {"name": model.path.name, "sha256": model.sha256},
        "network": {"file": NETWORK_FILE, "sha256": network.sha256, "changed": list(network.how)},
        "vnnlib": f"{version}.0", "norm": "linf", "units": units, "valid_range": valid.source, "data_sha256": samples.sha256,
        "properties": told,
    }  # fmt: skip
    files[ABOUT] = json.dumps(about_all, indent=1, allow_nan=False) + "\n"
    files[INSTANCES] = "\n".join(rows) + "\n"
    return PropertyFiles(files, len(chosen), tuple(epsilons), units, network.how)
