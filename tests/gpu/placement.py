"""Where nodes run: of float, float16, int8 and Transformer files."""

from __future__ import annotations

from pathlib import Path

from onnxfim.runtime.hardware import Hardware
from onnxfim.runtime.placement import kinds_told
from onnxfim.runtime.session import open_session
from tests.gpu.lines import SAMPLES, Bench

#: File, and whether all of its compute nodes must be on the provider; a quantised file's constants may be folded on the CPU.
_OURS = {
    "digits_resnet": True, "digits_vit": True, "digits_densenet": True, "digits_vgg": True,
    "digits_resnet_fp16": True, "digits_resnet_int8": True,
}  # fmt: skip
_THEIRS = {
    "cifar_resnet20": True, "cifar_vit_pgd_2_3_16": True, "textline_direction_mobilenetv3": True,
    "cifar_resnet20_fp16": True, "cifar_resnet8_qdq_int8": True, "kws_dscnn_qdq_int8": True,
}  # fmt: skip


def check(bench: Bench) -> None:
    """Nodes per provider; shape arithmetic and constants may lie elsewhere."""
    files = {SAMPLES / f"{name}.onnx": whole for name, whole in _OURS.items()}
    if bench.shared is not None:
        files |= {bench.shared / "models" / f"{name}.onnx": whole for name, whole in _THEIRS.items()}
    for path, whole in files.items():
        told, elsewhere = _placed(bench, path)
        if whole:
            bench.hold(f"nodes of {path.stem}", told, "compute nodes all there", not elsewhere)
        else:
            bench.tell(f"nodes of {path.stem}", told)


def _placed(bench: Bench, path: Path) -> tuple[str, int]:
    """In words, and how many compute nodes are elsewhere."""
    _, report = open_session(path, Hardware((bench.provider,)))
    where = report.placement
    if where is None:
        return "not known: this ONNX Runtime does not tell", 1
    told = []
    for part in where.placed:
        name = part.provider.removesuffix("ExecutionProvider")
        told.append(
            f"{part.nodes} on {name}" + ("" if part.asked else f" ({part.computing} compute: {kinds_told(part.operators)})")
        )
    return ", ".join(told), sum(part.computing for part in where.elsewhere)
