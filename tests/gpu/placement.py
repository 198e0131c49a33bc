"""Where nodes run: of float, float16, int8 and Transformer files, and of our own graphs beside them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import onnxruntime

from onnxfim.runtime.providers import provider_names
from tests.gpu.lines import SAMPLES, Bench

#: File, and whether all of its nodes must be on the provider.
_OURS = {
    "digits_resnet": True, "digits_vit": True, "digits_densenet": True, "digits_vgg": True,
    "digits_resnet_fp16": True, "digits_resnet_int8": False,
}  # fmt: skip
_THEIRS = {
    "cifar_resnet20": True, "cifar_vit_pgd_2_3_16": True, "textline_direction_mobilenetv3": True,
    "cifar_resnet20_fp16": True, "cifar_resnet8_qdq_int8": False, "kws_dscnn_qdq_int8": False,
}  # fmt: skip


def check(bench: Bench) -> None:
    """Nodes per provider."""
    files = {SAMPLES / f"{name}.onnx": whole for name, whole in _OURS.items()}
    if bench.shared is not None:
        files |= {bench.shared / "models" / f"{name}.onnx": whole for name, whole in _THEIRS.items()}
    for path, whole in files.items():
        told, elsewhere = _placed(bench, path)
        if whole:
            bench.hold(f"nodes of {path.stem}", told, "all on the provider", not elsewhere)
        else:
            bench.tell(f"nodes of {path.stem}", told)


def _placed(bench: Bench, path: Path) -> tuple[str, int]:
    """In words, and how many nodes are elsewhere."""
    wanted = provider_names((bench.provider,))[0]
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    session = onnxruntime.InferenceSession(path, options, providers=list(dict.fromkeys([wanted, "CPUExecutionProvider"])))
    counts: dict[str, Counter[str]] = {}
    for part in session.get_provider_graph_assignment_info():
        counts.setdefault(part.ep_name, Counter()).update(node.op_type for node in part.get_nodes())
    other = {name: found for name, found in counts.items() if name != wanted}
    told = f"{sum(counts.get(wanted, Counter()).values())} there"
    for name, found in other.items():
        told += f", {name.removesuffix('ExecutionProvider')}: " + ", ".join(f"{n} {op}" for op, n in found.most_common())
    return told, sum(sum(found.values()) for found in other.values())
