"""What rules read of a node: its attributes, its one input that varies, its padding."""

from __future__ import annotations

from typing import cast

from onnxfim.graph.graph import Node
from onnxfim.relaxed.network import RuleSite


def number(node: Node, name: str, default: float) -> float:
    """An attribute that is one number."""
    value = node.attributes.get(name)
    return default if value is None else float(cast("float", value))


def whole(node: Node, name: str, default: tuple[int, ...]) -> tuple[int, ...]:
    """An attribute that is a list of whole numbers; the default where it is not there, or empty."""
    value = node.attributes.get(name)
    return default if not value else tuple(int(v) for v in cast("tuple[int, ...]", value))


def first(site: RuleSite, node: Node) -> str:
    """The node's first input, where it is the only one that varies."""
    if not site.varies(node.inputs[0]) or any(site.varies(i) for i in node.inputs[1:] if i):
        raise site.none(node, "varies in another input than its first, which has no local rule")
    return node.inputs[0]


def keep_grid(site: RuleSite, node: Node, x: str) -> None:
    """Take over for the node's outputs that x stands for whole numbers of some scale, where it does."""
    if x in site.grids:
        site.grids.update({o: site.grids[x] for o in node.outputs if o})


def pads_in_front(
    node: Node, kernel: tuple[int, ...], strides: tuple[int, ...], dilations: tuple[int, ...], size: tuple[int, ...],
    out: tuple[int, ...],
) -> tuple[int, ...]:  # fmt: skip
    """Padding in front of each axis."""
    auto = node.attributes.get("auto_pad", "NOTSET")
    if auto == "VALID":
        return (0,) * len(size)
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        totals = [
            max(0, (m - 1) * s + (k - 1) * d + 1 - n) for n, m, k, s, d in zip(size, out, kernel, strides, dilations, strict=True)
        ]
        return tuple(t // 2 if auto == "SAME_UPPER" else t - t // 2 for t in totals)
    return whole(node, "pads", (0,) * (2 * len(size)))[: len(size)]
