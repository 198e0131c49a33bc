"""Geometry of sliding windows: strides, dilations and explicit pads of convolutions and pools."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from onnxfim.gradients.derivative_rules import Site


@dataclass(frozen=True)
class Window:
    """A sliding window per spatial axis; ``pads`` is (begin, end) per axis, ``size`` the spatial size it slides over."""

    size: tuple[int, ...]
    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[tuple[int, int], ...]

    @property
    def extent(self) -> tuple[int, ...]:
        """Cells from the first to the last tap."""
        return tuple((k - 1) * d + 1 for k, d in zip(self.kernel, self.dilations, strict=True))

    @property
    def flat_pads(self) -> list[int]:
        """Pads in ONNX order: all begins, then all ends."""
        return [p[0] for p in self.pads] + [p[1] for p in self.pads]

    def output_padding(self, out: Sequence[int]) -> list[int]:
        """Cells behind the last window, which a transposed convolution back to ``size`` must add."""
        needed = zip(self.size, out, self.strides, self.extent, self.pads, strict=True)
        return [h + sum(p) - e - (o - 1) * s for h, o, s, e, p in needed]

    def taps(self, out: Sequence[int]) -> np.ndarray | None:
        """Which tap, counted through the kernel, joins each of ``out`` positions to each cell, (positions, cells).

        None where the window does not reach every cell from every position.
        """
        found = np.zeros((1, 1), np.int64)
        for h, o, k, s, d, (begin, _) in zip(self.size, out, self.kernel, self.strides, self.dilations, self.pads, strict=True):
            if s * (o - 1) + h > 1 + d * (k - 1) or (d > 1 and h > 1):  # too far apart, or cells between the taps
                return None
            distance = np.arange(h)[None] + begin - s * np.arange(o)[:, None]
            if (distance < 0).any() or (distance % d).any() or (distance >= k * d).any():
                return None
            axis = found[:, None, :, None] * k + distance[None, :, None, :] // d
            found = axis.reshape(len(found) * o, -1)
        return found


def window(n: Site, size: Sequence[int], out: Sequence[int], kernel: Sequence[int]) -> Window:
    """The window of a Conv or pool node with automatic padding worked out."""
    rank = len(size)
    strides = n.integers("strides") or [1] * rank
    dilations = n.integers("dilations") or [1] * rank
    automatic = str(n.attribute("auto_pad", "NOTSET"))
    flat = n.integers("pads") or [0] * (2 * rank)
    pads = list(zip(flat[:rank], flat[rank:], strict=True))
    if automatic.startswith("SAME"):
        pads = []
        for h, o, k, s, d in zip(size, out, kernel, strides, dilations, strict=True):
            total = max((o - 1) * s + (k - 1) * d + 1 - h, 0)
            small, large = total // 2, total - total // 2
            pads.append((small, large) if automatic == "SAME_UPPER" else (large, small))
    elif automatic == "VALID":
        pads = [(0, 0)] * rank
    return Window(tuple(size), tuple(kernel), tuple(strides), tuple(dilations), tuple(pads))
