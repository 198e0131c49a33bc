"""Matrix products and convolutions."""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence

import numpy as np

from onnxfim.gradients.derivative_rules import Site, linear, numel, rule
from onnxfim.gradients.rules import minimal
from onnxfim.gradients.rules.windows import Window, window
from onnxfim.graph.shapes import Shape


def _swap(n: Site, t: str, rank: int) -> str:
    """Exchange the last two axes."""
    return n.write("Transpose", t, perm=[*range(rank - 2), rank - 1, rank - 2])


def _sum(n: Site, terms: Sequence[str]) -> str:
    return terms[0] if len(terms) == 1 else n.write("Sum", *terms)


# MatMul and Gemm; one-dimensional operands are lifted to matrices beforehand


def _matmul_vjp(n: Site, u: str) -> Mapping[int, str]:
    a, b = n.inputs
    shape_a, shape_b, shape_y = (n.shape(t) for t in (a, b, n.y))
    back = {}
    if n.varies[0]:
        full = (*shape_y[:-2], *shape_a[-2:])
        back[0] = n.unbroadcast(n.write("MatMul", u, _swap(n, b, len(shape_b))), full, shape_a)
    if n.varies[1]:
        full = (*shape_y[:-2], *shape_b[-2:])
        back[1] = n.unbroadcast(n.write("MatMul", _swap(n, a, len(shape_a)), u), full, shape_b)
    return back


def _matmul_jvp(n: Site, vs: Mapping[int, str]) -> str:
    a, b = n.inputs
    rank = n.rank(n.y)
    terms = []
    if 0 in vs:
        terms.append(n.write("MatMul", n.align(vs[0], n.rank(a), rank), b))
    if 1 in vs:
        terms.append(n.write("MatMul", a, n.align(vs[1], n.rank(b), rank)))
    return _sum(n, terms)


rule("MatMul", _matmul_vjp, _matmul_jvp)


def _scaled(n: Site, t: str, factor: float) -> str:
    return t if factor == 1.0 else n.mul(t, factor)


def _gemm_vjp(n: Site, u: str) -> Mapping[int, str]:
    a, b = n.inputs[:2]
    back = {}
    scaled = _scaled(n, u, n.real("alpha", 1.0))
    if n.varies[0]:
        g = n.write("MatMul", scaled, b if n.integer("transB") else _swap(n, b, 2))
        back[0] = _swap(n, g, 3) if n.integer("transA") else g
    if n.varies[1]:
        g = n.write("MatMul", a if n.integer("transA") else _swap(n, a, 2), scaled)
        back[1] = _swap(n, g, 3) if n.integer("transB") else g
    if n.has(2) and n.varies[2]:
        back[2] = n.unbroadcast(_scaled(n, u, n.real("beta", 1.0)), n.shape(n.y), n.shape(n.inputs[2]))
    return back


def _gemm_jvp(n: Site, vs: Mapping[int, str]) -> str:
    a, b = n.inputs[:2]
    trans_a, trans_b = n.integer("transA"), n.integer("transB")
    terms = []
    if 0 in vs:
        terms.append(n.write("MatMul", _swap(n, vs[0], 3) if trans_a else vs[0], _swap(n, b, 2) if trans_b else b))
    if 1 in vs:
        terms.append(n.write("MatMul", _swap(n, a, 2) if trans_a else a, _swap(n, vs[1], 3) if trans_b else vs[1]))
    terms = [_scaled(n, t, n.real("alpha", 1.0)) for t in terms]
    if 2 in vs:
        dims = n.shape(n.inputs[2])
        terms.append(n.broadcast(_scaled(n, vs[2], n.real("beta", 1.0)), dims, n.y))
    return _sum(n, terms)


rule("Gemm", _gemm_vjp, _gemm_jvp)


# Einsum


def _terms(n: Site) -> tuple[list[str], str]:
    """Subscripts of the operands and of the result, the ellipsis spelt out."""
    equation = str(n.attribute("equation", "")).replace(" ", "")
    left, arrow, right = equation.partition("->")
    operands = left.split(",")
    if not arrow:
        letters = sorted(c for c in set(left) - set(",.") if left.count(c) == 1)
        right = ("..." if "..." in left else "") + "".join(letters)
    free = [c for c in string.ascii_letters if c not in equation]
    spread = max((n.rank(x) - len(t.replace("...", "")) for t, x in zip(operands, n.inputs, strict=True) if "..." in t), default=0)
    if spread > len(free) - 1:
        raise n.refuse("it uses too many subscripts")
    filled = []
    for t, x in zip(operands, n.inputs, strict=True):
        here = n.rank(x) - len(t.replace("...", ""))
        filled.append(t.replace("...", "".join(free[spread - here : spread])))
    right = right.replace("...", "".join(free[:spread]))
    sizes: dict[str, object] = {}
    for t, x in zip(filled, n.inputs, strict=True):
        if len(set(t)) < len(t):
            raise n.refuse("it takes a diagonal")
        for c, d in zip(t, n.shape(x), strict=True):
            if sizes.setdefault(c, d) != d:
                raise n.refuse("it broadcasts an axis of length one")
    return filled, right


def _einsum_vjp(n: Site, u: str) -> Mapping[int, str]:
    operands, out = _terms(n)
    seed = next(c for c in string.ascii_letters if c not in "".join(operands) + out)
    back = {}
    for i, letters in enumerate(operands):
        if not n.varies[i]:
            continue
        others = [j for j in range(len(operands)) if j != i]
        there = set(out).union(*(operands[j] for j in others))
        target = "".join(c for c in letters if c in there)
        equation = ",".join([seed + out, *(operands[j] for j in others)]) + "->" + seed + target
        g = n.write("Einsum", u, *(n.inputs[j] for j in others), equation=equation)
        if target != letters:  # summed in this operand alone: the cotangent is the same along that axis
            g = n.write("Unsqueeze", g, [k + 1 for k, c in enumerate(letters) if c not in there])
            g = n.write("Expand", g, n.write("Concat", [1], n.write("Shape", n.inputs[i]), axis=0))
        back[i] = g
    return back


def _einsum_jvp(n: Site, vs: Mapping[int, str]) -> str:
    operands, out = _terms(n)
    seed = next(c for c in string.ascii_letters if c not in "".join(operands) + out)
    terms = []
    for i, v in vs.items():
        equation = ",".join(seed + t if j == i else t for j, t in enumerate(operands)) + "->" + seed + out
        terms.append(n.write("Einsum", *(v if j == i else x for j, x in enumerate(n.inputs)), equation=equation))
    return _sum(n, terms)


rule("Einsum", _einsum_vjp, _einsum_jvp)


# convolutions

_GROWTH = 2  # at most, of the weights of a convolution written as a dense layer


def _conv_window(n: Site, wide: Shape, narrow: Shape) -> tuple[Window, int, list[int]]:
    """Window, groups and weight shape of a convolution from the ``wide`` side to the ``narrow`` one."""
    weight = n.static(n.shape(n.inputs[1]))
    return window(n, n.static(wide[2:]), n.static(narrow[2:]), weight[2:]), n.integer("group", 1), weight


def _conv_transpose_of(n: Site, u: str) -> str:
    """Cotangent of a convolution's input: a convolution with flipped weights at stride 1, a transposed one otherwise.

    At stride 1 few cells of many channels take minimal filtering. Transposed convolutions stay: written as convolutions of each
    phase, or of all at once, they measured from 0.65 to 6 times as long, most of them twice.

    Where the window reaches every cell from every position, the convolution is a dense layer, and a matrix product does the same
    multiplications without the border that convolutions of a few cells mostly consist of.
    """
    x, y = n.shape(n.x), n.shape(n.y)
    w, groups, weight = _conv_window(n, x, y)
    taps = w.taps(n.static(y[2:]))
    if groups == 1 and taps is not None and taps.size <= _GROWTH * numel(w.kernel):
        g = n.write("MatMul", n.reshape(u, [y[0], numel(n.static(y[1:]))]), _dense(n, weight, taps))
        return n.reshape(g, x)
    folded = n.fold(u, y)
    pads = [(e - 1 - b, e - 1 - a) for (b, a), e in zip(w.pads, w.extent, strict=True)]
    if all(s == 1 for s in w.strides) and all(b >= 0 and a >= 0 for b, a in pads):
        flat = [b for b, _ in pads] + [a for _, a in pads]
        size, out = n.static(y[2:]), n.static(x[2:])
        plain = groups == 1 and all(k == 3 and d == 1 for k, d in zip(w.kernel, w.dilations, strict=True))
        if plain and minimal.pays(weight[:2], size, out):
            return n.unfold(minimal.flipped(n, folded, weight, size, out, flat[: len(pads)]), x)
        flipped = _flipped(n, n.inputs[1], weight, groups)
        g = n.write("Conv", folded, flipped, pads=flat, dilations=list(w.dilations), group=groups, kernel_shape=list(w.kernel))
        return n.unfold(g, x)
    g = n.write(
        "ConvTranspose", folded, n.inputs[1], strides=list(w.strides), dilations=list(w.dilations), group=groups,
        kernel_shape=list(w.kernel), pads=w.flat_pads, output_padding=w.output_padding(n.static(y[2:])),
    )  # fmt: skip
    return n.unfold(g, x)


def _dense(n: Site, weight: Sequence[int], taps: np.ndarray) -> str:
    """Weights (M, C, *k) as the matrix (M·positions, C·cells) of a dense layer; constant, so computed once at load time."""
    m, c = weight[:2]
    positions, cells = taps.shape
    w = n.write("Gather", n.write("Reshape", n.inputs[1], [m, c, -1]), taps.reshape(-1), axis=2)
    w = n.write("Transpose", n.write("Reshape", w, [m, c, positions, cells]), perm=[0, 2, 1, 3])
    return n.write("Reshape", w, [m * positions, c * cells])


def _flipped(n: Site, w: str, shape: Sequence[int], groups: int) -> str:
    """Weights (M, C/g, *k) turned to (C, M/g, *k), taps in reverse order; constant, so computed once at load time."""
    m, c, *kernel = shape
    k = len(kernel)
    wide = [a for a in range(k) if kernel[a] > 1]
    if wide:
        axes = [a + 2 for a in wide]
        w = n.write("Slice", w, [-1] * len(axes), [-(2**62)] * len(axes), axes, [-1] * len(axes))
    if groups == 1:
        return n.write("Transpose", w, perm=[1, 0, *range(2, 2 + k)])
    if groups == m and c == 1:
        return w
    w = n.write("Reshape", w, [groups, m // groups, c, *kernel])
    w = n.write("Transpose", w, perm=[0, 2, 1, *range(3, 3 + k)])
    return n.write("Reshape", w, [groups * c, m // groups, *kernel])


def _conv(n: Site, v: str) -> str:
    x, y = n.shape(n.x), n.shape(n.y)
    w, groups, _ = _conv_window(n, x, y)
    g = n.write(
        "Conv", n.fold(v, x), n.inputs[1], strides=list(w.strides), dilations=list(w.dilations),
        pads=w.flat_pads, group=groups, kernel_shape=list(w.kernel),
    )  # fmt: skip
    return n.unfold(g, y)


linear("Conv", transpose=_conv_transpose_of, apply=_conv)


def _transposed_window(n: Site) -> tuple[Window, int]:
    """Window of the convolution whose transpose a ConvTranspose node is, pads worked out from the sizes."""
    x, y = n.static(n.shape(n.x)[2:]), n.static(n.shape(n.y)[2:])
    weight = n.static(n.shape(n.inputs[1]))
    rank = len(x)
    strides, dilations = n.integers("strides") or [1] * rank, n.integers("dilations") or [1] * rank
    extra = n.integers("output_padding") or [0] * rank
    if n.integers("output_shape") or str(n.attribute("auto_pad", "NOTSET")).startswith("SAME"):
        raise n.refuse("output_shape and automatic padding have no rule here")
    flat = n.integers("pads") or [0] * (2 * rank)
    pads = tuple(zip(flat[:rank], flat[rank:], strict=True))
    w = Window(tuple(y), tuple(weight[2:]), tuple(strides), tuple(dilations), pads)
    if w.output_padding(x) != extra:
        raise n.refuse("its pads do not explain its output size")
    return w, n.integer("group", 1)


def _conv_transpose(n: Site, v: str) -> str:
    w, groups = _transposed_window(n)
    g = n.write(
        "ConvTranspose", n.fold(v, n.shape(n.x)), n.inputs[1], strides=list(w.strides), dilations=list(w.dilations),
        pads=w.flat_pads, group=groups, kernel_shape=list(w.kernel), output_padding=n.integers("output_padding") or None,
    )  # fmt: skip
    return n.unfold(g, n.shape(n.y))


def _conv_of(n: Site, u: str) -> str:
    w, groups = _transposed_window(n)
    if any(e >= s for e, s in zip(w.output_padding(n.static(n.shape(n.x)[2:])), w.strides, strict=True)):
        raise n.refuse("its output_padding is not smaller than its stride")
    g = n.write(
        "Conv", n.fold(u, n.shape(n.y)), n.inputs[1], strides=list(w.strides), dilations=list(w.dilations),
        pads=w.flat_pads, group=groups, kernel_shape=list(w.kernel),
    )  # fmt: skip
    return n.unfold(g, n.shape(n.x))


linear("ConvTranspose", transpose=_conv_of, apply=_conv_transpose)
