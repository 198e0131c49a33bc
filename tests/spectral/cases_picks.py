"""Random small graphs of operators that pick, place, sort, sample and transform."""

from __future__ import annotations

import numpy as np

from tests.spectral.cases import REFUSED, case, ints, node
from tests.spectral.dense import Case


def rows_of(value: np.ndarray, name: str) -> tuple[list, dict[str, np.ndarray]]:
    """Nodes and weights of a constant (1, ...) repeated for each row of the batch."""
    nodes = [
        node("Shape", ["x"], ["dims"]),
        node("Slice", ["dims", "zero", "one"], ["lead"]),
        node("Concat", ["lead", f"{name}_dims"], [f"{name}_shape"], axis=0),
        node("Expand", [f"{name}_row", f"{name}_shape"], [name]),
    ]
    dims = np.asarray(value.shape[1:], np.int64)
    return nodes, {f"{name}_row": value, f"{name}_dims": dims, "zero": np.array([0]), "one": np.array([1])}


@case("GatherElements")
def gather_elements(rng, op):
    axis, n = int(rng.choice([1, 2, -1])), ints(rng, 1, 4, 2)
    dims = [1, min(n[0], 3) if axis != 1 else n[0], min(n[1], 4) if axis == 1 else n[1]]
    index, weights = rows_of(rng.integers(-3 if axis == 1 else -4, 3 if axis == 1 else 4, dims), "i")
    return Case([*index, node(op, ["x", "i"], axis=axis)], (3, 4), weights, linear=True, within=0.01)


@case("GatherND")
def gather_nd(rng, op):
    places = np.stack([rng.integers(-3, 3, 5), rng.integers(-4, 4, 5)], axis=-1)[None, :, : int(rng.integers(1, 3))]
    index, weights = rows_of(places, "i")
    return Case([*index, node(op, ["x", "i"], batch_dims=1)], (3, 4), weights, linear=True, within=0.01)


@case("ScatterElements")
def scatter_elements(rng, op):
    """Data, updates or both vary; what goes to one place is added, or the largest stays, or no two go to one place."""
    reduction = str(rng.choice(["none", "add", "max", "min"]))
    count = int(rng.integers(1, 4))
    places = rng.permutation(4)[None, :count] if reduction == "none" else rng.integers(-4, 4, (1, count))
    index, weights = rows_of(places, "i")
    fixed, more = rows_of(rng.normal(size=(1, 4 if (varies := int(rng.integers(3))) == 0 else count)), "f")
    news = [node("MatMul", ["x", "W"], ["n"])]
    data, updates = [("f", "n"), ("x", "f"), ("x", "n")][varies]
    attributes = {} if reduction == "none" else {"reduction": reduction}
    nodes = [*index, *fixed[3:], *news, node(op, [data, "i", updates], axis=1, **attributes)]
    nodes[-3:-3] = fixed[2:3]
    linear = reduction in ("none", "add")
    return Case(nodes, (4,), {**weights, **more, "W": rng.normal(size=(4, count))}, linear=linear)


@case("ScatterND")
def scatter_nd(rng, op):
    reduction = str(rng.choice(["none", "add", "max"]))
    count = int(rng.integers(1, 4))
    places = rng.permutation(3)[:count] if reduction == "none" else rng.integers(-3, 3, count)
    attributes = {} if reduction == "none" else {"reduction": reduction}
    nodes = [
        node("Transpose", ["x"], ["t"], perm=[1, 0, 2]),
        node("Slice", ["t", "zero", "end"], ["s"]),
        node("Mul", ["s", "c"], ["n"]),
        node(op, ["t", "i", "n"], ["p"], **attributes),
        node("Transpose", ["p"], perm=[1, 0, 2]),
    ]
    weights = {"i": places.reshape(-1, 1), "zero": np.array([0]), "end": np.array([count]), "c": np.float64(rng.normal())}
    return Case(nodes, (3, 2), weights, linear=reduction != "max")


@case("TopK")
def top(rng, op):
    attributes = {"largest": int(rng.integers(2)), "sorted": 1, "axis": int(rng.choice([1, -1]))}
    return Case([node("MatMul", ["x", "W"], ["h"]), node(op, ["h", "k"], ["y", "places"], **attributes)], (4,), {"k": np.array([int(rng.integers(1, 5))]), "W": rng.normal(size=(4, 4))})  # fmt: skip


@case("ReverseSequence")
def reverse_sequence(rng, op):
    lengths, weights = rows_of(rng.integers(1, 4, (1,)), "l")
    return Case([*lengths, node(op, ["x", "l"], batch_axis=0, time_axis=1)], (3, 2), weights, linear=True, within=0.01)


@case("Compress")
def compress(rng, op):
    kept = rng.random(4) < 0.6
    kept[0] = True
    return Case([node(op, ["x", "c"], axis=2)], (3, 4), {"c": kept}, linear=True, within=0.01)


@case("TensorScatter")
def tensor_scatter(rng, op):
    nodes = [node("Mul", ["x", "c"], ["m"]), node("Slice", ["m", "zero", "end", "one"], ["n"]), node(op, ["x", "n"], axis=1)]
    weights = {"c": np.float64(rng.normal()), "zero": np.array([0]), "end": np.array([2]), "one": np.array([1])}
    return Case(nodes, (4, 2), weights, opset=24, linear=True)


@case("CumSum")
def running_sum(rng, op):
    attributes = {"exclusive": int(rng.integers(2)), "reverse": int(rng.integers(2))}
    axis = int(rng.choice([1, 2, -1, -2]))
    return Case([node(op, ["x", "a"], **attributes)], (3, 4), {"a": np.array(axis)}, linear=True, within=0.01)


@case("DFT")
def fourier(rng, op):
    """Cut, filled up, of one side, inverse; tight where nothing is left out."""
    parts, inverse, length = int(rng.integers(1, 3)), int(rng.integers(2)), int(rng.integers(2, 7))
    onesided = int(rng.integers(2)) if parts == 1 + inverse else 0
    if inverse and onesided:
        length = int(rng.integers(6, 8))  # of four entries
    whole = parts == 2 and (length <= 4 or onesided)
    attributes = {"axis": 1, "inverse": inverse, "onesided": onesided}
    return Case(
        [node(op, ["x", "n"], **attributes)], (4, parts), {"n": np.array(length)}, linear=True, within=0.01 if whole else None
    )


@case("STFT")
def short_time_fourier(rng, op):
    """A convolution: as tight as that."""
    length, step = int(rng.integers(2, 6)), int(rng.integers(1, 4))
    weights = {"s": np.array(step), "w": rng.uniform(0.2, 1, length), "n": np.array(length)}
    return Case([node(op, ["x", "s", "w", "n"])], (12, 1), weights, linear=True, within=0.01)


@case("GridSample", "AffineGrid", "DeformConv")
def sampled(rng, op):
    if op == "DeformConv":
        offset, weights = rows_of(rng.normal(size=(1, 8, 3, 4)), "o")
        weights["W"] = rng.normal(size=(2, 2, 2, 2))
        return Case([*offset, node(op, ["x", "W", "o"])], (2, 4, 5), weights, opset=19, linear=True)
    corners = int(rng.integers(2))
    if op == "AffineGrid":
        nodes = [node("Reshape", ["x", "s"], ["t"]), node(op, ["t", "n"], align_corners=corners)]
        head = [
            node("Shape", ["x"], ["dims"]),
            node("Slice", ["dims", "zero", "one"], ["lead"]),
            node("Concat", ["lead", "size"], ["n"], axis=0),
        ]
        weights = {
            "s": np.array([-1, 2, 3]),
            "size": np.array([1, *ints(rng, 1, 4, 2)]),
            "zero": np.array([0]),
            "one": np.array([1]),
        }
        return Case([*head, *nodes], (6,), weights, opset=20, linear=True, within=0.01)
    attributes = {
        "mode": str(rng.choice(["linear", "nearest", "cubic"])),
        "padding_mode": str(rng.choice(["zeros", "border", "reflection"])),
        "align_corners": corners,
    }
    grid, weights = rows_of(rng.uniform(-1.5, 1.5, (1, *ints(rng, 1, 4, 2), 2)), "g")
    return Case([*grid, node(op, ["x", "g"], **attributes)], (2, *ints(rng, 2, 4, 2)), weights, opset=20, linear=True)


@case("RoiAlign")
def aligned(rng, op):
    corner = rng.uniform(0, 2, (2, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(0.5, 3, (2, 2))], axis=1)
    head = [
        node("Shape", ["x"], ["dims"]), node("Slice", ["dims", "zero", "one"], ["lead"]), node("Squeeze", ["lead"], ["n"]),
        node("Range", ["first", "n", "step"], ["r"]), node("Unsqueeze", ["r", "one"], ["c"]), node("Mul", ["c", "two"], ["m"]),
        node("Reshape", ["m", "flat"], ["owner"]), node("Concat", ["lead", "four"], ["b"], axis=0), node("Expand", ["boxes", "b"], ["e"]),
        node("Reshape", ["e", "rows"], ["rois"]),
    ]  # fmt: skip
    weights = {
        "zero": np.array([0]), "one": np.array([1]), "first": np.array(0), "step": np.array(1), "two": np.ones((1, 2), np.int64),
        "flat": np.array([-1]), "four": np.array([2, 4]), "boxes": boxes[None], "rows": np.array([-1, 4]), "out": np.array([-1, 8]),
    }  # fmt: skip
    nodes = [
        *head,
        node(op, ["x", "rois", "owner"], ["a"], output_height=2, output_width=2, sampling_ratio=2),
        node("Reshape", ["a", "out"]),
    ]
    return Case(nodes, (1, 4, 5), weights, linear=True)


@case("LpPool", "GlobalLpPool")
def norms_of_windows(rng, op):
    p = int(rng.integers(1, 4))
    if op == "GlobalLpPool":
        return Case([node(op, ["x"], p=p)], (2, 3, 2))
    k, s, d = ints(rng, 1, 3, 2), ints(rng, 1, 3, 2), ints(rng, 1, 2, 2)
    return Case([node(op, ["x"], p=p, kernel_shape=k, strides=s, dilations=d)], (1, 6, 5))


@case("Col2Im")
def columns(rng, op):
    k, s = ints(rng, 1, 3, 2), ints(rng, 1, 3, 2)
    image = [k[0] + 3, k[1] + 2]
    out = [(h - a) // b + 1 for h, a, b in zip(image, k, s, strict=True)]
    weights = {"i": np.array(image), "b": np.array(k)}
    return Case([node(op, ["x", "i", "b"], strides=s)], (k[0] * k[1], out[0] * out[1]), weights, linear=True)


@case("Swish")
def swish(rng, op):
    return Case([node(op, ["x"], alpha=float(rng.normal() * 2))], (5,), opset=24)


@case("Shrink")
def soft_threshold(rng, op):
    size = float(abs(rng.normal()))
    return Case([node(op, ["x"], lambd=size, bias=size)], (5,))


@case("Mod", table=REFUSED)
def remainder(rng, op):
    return Case([node(op, ["x", "c"], fmod=1)], (4,), {"c": np.float32(0.7)})


@case("Einsum")
def einsum(rng, op):
    equation, shape, other = [
        ("nij,jk->nik", (3, 4), (4, 2)), ("...ij,kj->...ki", (3, 4), (2, 4)), ("nij,ij->n", (3, 4), (3, 4)), ("ji,nij->nj", (3, 4), (4, 3)),
    ][int(rng.integers(4))]  # fmt: skip
    inputs = ["W", "x"] if equation.startswith("ji,") else ["x", "W"]
    return Case([node(op, inputs, equation=equation)], shape, {"W": rng.normal(size=other)}, linear=True, within=0.01)
