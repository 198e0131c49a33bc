"""Quantised files at default settings against their float twins: step, value, interval, verdict and passes.

Run by hand: ``python -m tests.benchmarks.bench_quantised [--quick] [--models TEXT]``. A row passes where the mean is within 25 % of
the float twin's, or the audit says by an error that it must not be trusted. Beside the quantised files that are at hand, some are
made from float ones with onnxruntime.quantization, in a temporary folder.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from onnxfim.auditing.run import audit
from onnxfim.record.audit import Audit
from onnxfim.record.settings import Settings
from tests.benchmarks._common import SAMPLE_MODELS, SHARED_MODELS, arguments, print_table

SAMPLES = 64
WITHIN = 0.25
_MORE = SHARED_MODELS.parent / "models_more"
_CALIBRATED_BY = slice(100, 180)  # samples of the quantisation, other than the audited ones

DIGITS = SAMPLE_MODELS / "digits.npz"
#: (quantised file, float twin, samples)
PAIRS = (
    (SAMPLE_MODELS / "digits_resnet_int8.onnx", SAMPLE_MODELS / "digits_resnet.onnx", DIGITS),
    (
        SHARED_MODELS / "cifar_resnet8_qdq_int8.onnx", SHARED_MODELS / "cifar_resnet8_float.onnx",
        SHARED_MODELS / "data_cifar10_raw255_nhwc.npz",
    ),
    (SHARED_MODELS / "kws_dscnn_qdq_int8.onnx", SHARED_MODELS / "kws_dscnn_float.onnx", SHARED_MODELS / "data_speech_mfcc.npz"),
    (
        _MORE / "imagenet_mobilenetv1_025_qdq_int8.onnx", _MORE / "imagenet_mobilenetv1_025.onnx",
        _MORE / "data_imagenet_mobilenet_nhwc.npz",
    ),
)  # fmt: skip
#: (float file, samples, how it is quantised)
MADE = (
    (SAMPLE_MODELS / "digits_vgg.onnx", DIGITS, "QDQ int8"),
    (SAMPLE_MODELS / "digits_mlp.onnx", DIGITS, "QOperator int8"),
    (SHARED_MODELS / "cifar_cnna_sgd.onnx", SHARED_MODELS / "data_cifar10_c3.npz", "QDQ uint8 per channel"),
    (SHARED_MODELS / "cifar_cnna_sgd.onnx", SHARED_MODELS / "data_cifar10_c3.npz", "QOperator uint8"),
    (SHARED_MODELS / "cifar_cnna_sgd.onnx", SHARED_MODELS / "data_cifar10_c3.npz", "dynamic"),
    (SHARED_MODELS / "mnist_mlp2x256_fgsm.onnx", SHARED_MODELS / "data_mnist_id_28x28.npz", "dynamic"),
    (SHARED_MODELS / "mnist_mlp2x256_fgsm.onnx", SHARED_MODELS / "data_mnist_id_28x28.npz", "QDQ uint8"),
    (SHARED_MODELS / "fashion_cnna_kw.onnx", SHARED_MODELS / "data_fashion_mnist_id.npz", "QDQ int8 per channel"),
    (SHARED_MODELS / "cifar_resnet20.onnx", SHARED_MODELS / "data_cifar10_in.npz", "QDQ int8 per channel"),
    (SHARED_MODELS / "cifar_resnet20.onnx", SHARED_MODELS / "data_cifar10_in.npz", "QOperator uint8"),
)


def quantised(path: Path, inputs: np.ndarray, how: str, into: Path) -> Path:
    """A quantised copy of a float file."""
    from onnxruntime import quantization as q

    class Reader(q.CalibrationDataReader):
        def __init__(self) -> None:
            name = onnx.load(path, load_external_data=False).graph.input[0].name
            self.rows: Iterator[dict[str, Any]] = iter([{name: x[None]} for x in inputs[_CALIBRATED_BY]])

        def get_next(self) -> Any:
            return next(self.rows, None)

    out = into / f"{path.stem}_{how.replace(' ', '_')}.onnx"
    if how == "dynamic":
        q.quantize_dynamic(path, out)
        return out
    kind = q.QuantType.QUInt8 if "uint8" in how else q.QuantType.QInt8
    form = q.QuantFormat.QOperator if how.startswith("QOperator") else q.QuantFormat.QDQ
    weights = q.QuantType.QInt8 if "per channel" in how else kind
    q.quantize_static(
        path, out, Reader(), quant_format=form, activation_type=kind, weight_type=weights, per_channel="per channel" in how
    )
    return out


_TRUTH: dict[Path, Audit] = {}


def row(file: Path, twin: Path, data: Path) -> list[object]:
    """A quantised file beside its float twin."""
    with np.load(data) as arrays:
        inputs, labels = arrays["inputs"][:SAMPLES], arrays["labels"][:SAMPLES]
    settings = Settings(replay=0, bounds=False, providers=("cpu",))
    if twin not in _TRUTH:
        _TRUTH[twin] = audit(twin, inputs, labels, settings)
    truth, found = _TRUTH[twin], audit(file, inputs, labels, settings)
    step, bias = found.step, found.step.bias
    check = None if found.gradient is None else found.gradient.check
    errors = [f.id for f in found.findings if f.level == "error"]
    raw = ratio(found, truth, "lambda_max")
    good = bool(errors) or (raw is not None and abs(raw[0] - 1) <= WITHIN)
    return [
        file.stem, len(inputs), f"{step.step / step.input_std:.3g}", written(raw), written(ratio(found, truth, "lambda_max_calibrated")),
        None if bias is None else f"{bias.factor:.2f} ({bias.low:.2f} … {bias.high:.2f})",
        None if check is None else f"{check.ratio:.2f} [{check.low:.2f}, {check.high:.2f}]",
        f"{found.measured}/{len(inputs)}", found.verdict, ", ".join(errors) or None, step.evaluations, found.run.evaluations,
        "yes" if good else "**no**",
    ]  # fmt: skip


def ratio(found: Audit, truth: Audit, measure: str) -> tuple[float, float, float] | None:
    """Mean and its interval over the float twin's mean."""
    mean, whole = found.aggregates[measure].mean, truth.aggregates[measure].mean.value
    if mean.value is None or mean.low is None or mean.high is None or not whole:
        return None
    return mean.value / whole, mean.low / whole, mean.high / whole


def written(one: tuple[float, float, float] | None) -> str | None:
    return None if one is None else f"{one[0]:.2f} [{one[1]:.2f}, {one[2]:.2f}]"


def main() -> None:
    options = arguments(__doc__)
    headers = (
        "file", "samples", "step / std", "mean / float's [95 %]", "calibrated", "step's factor", "file / surrogate", "measured",
        "verdict", "errors", "passes of the ladder", "passes", "within 25 % or said",
    )  # fmt: skip

    def rows(folder: Path) -> Iterator[list[object]]:
        for file, twin, data in PAIRS[:1] if options.quick else PAIRS:
            if file.is_file() and options.models in file.stem:
                yield row(file, twin, data)
        for twin, data, how in () if options.quick else MADE:
            if twin.is_file() and options.models in f"{twin.stem}_{how}":
                with np.load(data) as arrays:
                    inputs = arrays["inputs"]
                yield row(quantised(twin, inputs, how, folder), twin, data)

    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        print_table(headers, rows(Path(folder)), title=f"Quantised files at default settings, {SAMPLES} samples")


if __name__ == "__main__":
    main()
