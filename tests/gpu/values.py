"""Values: the provider against the CPU and against exact ones, repeats, batch sizes and equal rows."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np

import onnxfim
from onnxfim import Audit, Settings
from onnxfim.runtime.forward import OnnxForward
from onnxfim.runtime.hardware import Hardware
from onnxfim.runtime.rows import Rademacher, Rows
from tests.benchmarks._common import Case, sample_case, shared_cases
from tests.gpu.lines import Bench

_SAMPLES = 32
_OURS = ("digits_resnet", "digits_vit", "digits_densenet", "digits_vgg", "digits_mlp")
_QUICK = ("digits_resnet", "digits_mlp")
_THEIRS = ("cifar_resnet20", "cifar_vit_pgd_2_3_16", "cifar_cnna_adv", "mnist_mlp2x256_pgd")
_MEAN, _SAMPLE = 0.01, 0.05  # largest relative difference of the mean, and of one sample


def check(bench: Bench) -> None:
    """Audits by gradients and by sketches: beside the CPU's and beside exact values; TF32 on and off; the same seed twice."""
    for case in _cases(bench):
        base = Settings(
            samples=8 if bench.quick else _SAMPLES, replay=0, bounds=False, providers=(bench.provider,), require_provider=True
        )
        for method in ("gradient", "sketch"):
            start = time.perf_counter()
            here = _audit(case, replace(base, method=method))
            seconds = time.perf_counter() - start
            # The same temperature and step: what is compared is the arithmetic.
            cpu = replace(base, method=method, providers=("cpu",), temperature=here.run.temperature)
            there = _audit(case, replace(cpu, step=here.step.step) if method == "sketch" else cpu)
            _beside(bench, f"{case.name}, {method}: beside the CPU", here, there.samples, f", {seconds:.1f} s")
            if case.exact is not None and method == "gradient":
                _beside(bench, f"{case.name}, {method}: beside exact values", here, case.exact["samples"])
    case = sample_case("digits_resnet")
    base = Settings(samples=8, replay=0, bounds=False, providers=(bench.provider,), method="gradient")
    plain, again = _audit(case, base), _audit(case, base)
    off = _off(plain, again.samples)
    bench.hold("the same seed twice, gradient: largest difference", f"{off.max():.1e}", "0", off.max() == 0)
    sketch = replace(base, method="sketch", budget=101)
    off = _off(_audit(case, sketch), _audit(case, sketch).samples)
    bench.hold("the same seed twice, sketch: largest difference", f"{off.max():.1e}", "0", off.max() == 0)
    if bench.provider == "cuda":
        rounded = _audit(case, replace(base, method="auto", tf32=True))  # gradients may fail their test in 10 bits of mantissa
        off = _off(rounded, plain.samples)
        bench.tell(f"TF32 on, {rounded.run.method}: mean and largest difference", f"{off.mean():.1e}, {off.max():.1e}")


def _cases(bench: Bench) -> list[Case]:
    ours = [sample_case(name) for name in (_QUICK if bench.quick else _OURS)]
    return ours if bench.quick or bench.shared is None else ours + [c for c in shared_cases() if c.name in _THEIRS]


def _audit(case: Case, settings: Settings) -> Audit:
    return onnxfim.audit(case.path, case.inputs, case.labels, settings)


def _value(sample: object) -> float:
    """lambda_max of a result of ours, or of a stored exact value."""
    if isinstance(sample, dict):
        return float(sample["lambda_max"])
    found = sample.lambda_max  # type: ignore[attr-defined]
    return float("nan") if found is None or found.value is None else float(found.value)


def _off(audit: Audit, others: object) -> np.ndarray:
    """Relative differences of the samples that both have."""
    known = {(s["index"] if isinstance(s, dict) else s.index): _value(s) for s in others}  # type: ignore[attr-defined]
    pairs = [(_value(s), known[s.index]) for s in audit.samples if s.index in known]
    return np.array([abs(a - b) / abs(b) for a, b in pairs if np.isfinite(a) and np.isfinite(b) and b != 0])


def _beside(bench: Bench, name: str, audit: Audit, others: object, more: str = "") -> None:
    known = {(s["index"] if isinstance(s, dict) else s.index): _value(s) for s in others}  # type: ignore[attr-defined]
    pairs = np.array([(_value(s), known[s.index]) for s in audit.samples if s.index in known])
    pairs = pairs[np.isfinite(pairs).all(axis=1)]
    if not len(pairs):
        bench.hold(name, "no value in common", "some", False)
        return
    mean = abs(pairs[:, 0].mean() / pairs[:, 1].mean() - 1)
    # A sample that weighs nothing in the mean may be off by more: float32 holds nothing below.
    heavy = pairs[pairs[:, 1] > 1e-3 * pairs[:, 1].mean()]
    worst = np.abs(heavy[:, 0] / heavy[:, 1] - 1).max()
    bench.hold(
        name, f"mean {mean:.1e}, worst {worst:.1e} of {len(heavy)}{more}", f"{_MEAN:.0%}, {_SAMPLE:.0%}",
        bool(mean <= _MEAN and worst <= _SAMPLE),
    )  # fmt: skip


def check_rows(bench: Bench) -> None:
    """The same rows in batches of other sizes, and equal rows in one batch: how far their outputs are apart."""
    for name in ("digits_resnet", "digits_vit"):
        case = sample_case(name)
        forward = OnnxForward(
            case.path, input_name=_only(case), output_name="logits", shape=case.inputs.shape[1:], dtype=case.inputs.dtype,
            hardware=Hardware((bench.provider,), require=True), batch=64,
        )  # fmt: skip
        X = np.resize(case.inputs, (256, *case.inputs.shape[1:]))
        whole = forward.raw(X)
        scale = np.abs(whole).max()
        for rows in (1, 8, 64):
            parts = np.concatenate([forward.raw(X[i : i + rows]) for i in range(0, 64, rows)])
            off = np.abs(parts - whole[:64]).max() / scale
            bench.hold(f"{name}: batch {rows} beside 256, largest / scale", f"{off:.1e}", "1e-5", off <= 1e-5)
        off = np.abs(np.ptp(forward.raw(np.repeat(X[:1], 64, axis=0)), axis=0)).max() / scale
        bench.hold(f"{name}: 64 equal rows, largest / scale", f"{off:.1e}", "1e-6", off <= 1e-6)
        v = Rademacher(0).block(0, 0, 64, int(np.prod(X.shape[1:])))
        rows_ = Rows(np.zeros(64, np.int64), v, np.full(64, 0.05))
        bound = next(iter(forward.stream(X, [rows_])))[:, :, 0]
        made = forward.raw((X[:1] + np.float32(0.05) * v.reshape(64, *X.shape[1:])).astype(np.float32))
        off = np.abs(bound - made).max() / scale
        bench.hold(f"{name}: rows made on the device beside the host's", f"{off:.1e}", "1e-5", off <= 1e-5)


def _only(case: Case) -> str:
    import onnx

    return str(onnx.load(case.path, load_external_data=False).graph.input[0].name)
