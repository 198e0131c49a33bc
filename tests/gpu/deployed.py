"""What deployment on the provider changes: the same file on the CPU and there, as `onnxfim compare` tells it."""

from __future__ import annotations

import json

from tests.gpu.commands import onnxfim
from tests.gpu.lines import SAMPLES, Bench

_SENSITIVITY = 0.01  # of the ratio's distance from 1


def check(bench: Bench) -> None:
    """Agreement of predictions, and the ratio of sensitivities; the int8 twin of a float file there."""
    provider = ("--provider", "cpu", "--deployed-provider", bench.provider)
    for name in ("digits_resnet",) if bench.quick else ("digits_resnet", "digits_vit"):
        found = _compared(bench, name, name, *provider)
        agreement, ratio = (found[key]["change"]["value"] for key in ("agreement", "sensitivity"))
        bench.hold(f"{name}, CPU to {bench.provider}: predictions agree", f"{agreement:.2%}", "100 %", agreement == 1)
        told = f"{ratio:.6f}"
        bench.hold(f"{name}, CPU to {bench.provider}: sensitivity x", told, f"1 +- {_SENSITIVITY}", abs(ratio - 1) <= _SENSITIVITY)
    if bench.quick:
        return
    found = _compared(bench, "digits_resnet", "digits_resnet_int8", "--provider", bench.provider)
    change = found["sensitivity"]["change"]
    told = " ".join(f"{v:.3f}" if v is not None else "-" for v in (change["value"], change["low"], change["high"]))
    bench.tell(f"digits_resnet to int8 on {bench.provider}: sensitivity x", told)


def _compared(bench: Bench, first: str, second: str, *flags: str) -> dict[str, dict[str, dict[str, float]]]:
    out = bench.folder / "compared.json"
    models = [str(SAMPLES / f"{name}.onnx") for name in (first, second)]
    count = "16" if bench.quick else "70"
    done = onnxfim(
        "compare", *models, "--data", str(SAMPLES / "digits.npz"), "--samples", count, "-o", f"json={out}", "--allow-inconclusive", *flags
    )  # fmt: skip
    if not out.is_file():
        raise RuntimeError(f"compare ended with {done.returncode}: {done.stderr[-500:]}")
    return dict(json.loads(out.read_text("utf-8"))["deployment"])
