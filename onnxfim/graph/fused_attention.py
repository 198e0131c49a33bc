"""ONNX Runtime's attention operators, written out in products and a softmax: prompts alone, no keys of earlier calls.

The standard's own Attention and RotaryEmbedding have a body in the standard, which `inline` takes.

Source: the operators' definitions, onnxruntime's docs/ContribOperators.md, and contrib_ops/cpu/bert for what masks are added.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import cast

import numpy as np
from onnx import TensorProto, helper

from onnxfim.graph.lower import Scratch, lowering

_MASKED = -10000.0  # what is added to the score of a token that is not to be seen, unless the node says otherwise


def _no_past(s: Scratch, inputs: Sequence[int], outputs: Sequence[int]) -> None:
    if any(s.get(i) for i in inputs):
        raise s.refuse("it takes keys of earlier calls, and a sample is audited by itself. Export the model without a cache")
    if any(i < len(s.node.output) and s.node.output[i] for i in outputs):
        raise s.refuse("its keys are handed on to later calls. Export the model without a cache")


def _heads(s: Scratch, x: str, heads: int) -> str:
    """(N, tokens, width) as (N, heads, tokens, width of a head)."""
    return s.write("Transpose", s.write("Reshape", x, [0, 0, heads, -1]), perm=[0, 2, 1, 3])


def _joined(s: Scratch, x: str) -> str:
    """(N, heads, tokens, width of a head) as (N, tokens, width)."""
    return s.write("Reshape", s.write("Transpose", x, perm=[0, 2, 1, 3]), [0, 0, -1])


def _attended(s: Scratch, q: str, k: str, v: str, scale: float, masks: Sequence[str | np.ndarray], softcap: float = 0.0) -> str:
    """``softmax(scale · q kᵀ + masks) v`` of heads, (N, heads, tokens, width of a head)."""
    scores = s.write("Mul", s.write("MatMul", q, s.write("Transpose", k, perm=[0, 1, 3, 2])), scale)
    if softcap > 0:
        scores = s.write("Mul", s.write("Tanh", s.write("Mul", scores, 1 / softcap)), softcap)
    for mask in masks:
        scores = s.write("Add", scores, mask)
    return s.write("MatMul", s.write("Softmax", scores, axis=-1), v)


def _later(s: Scratch, tokens: int, keys: int, value: float) -> np.ndarray:
    """A mask that hides the keys behind each token."""
    return np.triu(np.full((tokens, keys), value), 1 + keys - tokens).astype(s.dtype)


def _hidden(s: Scratch, name: str, keys: int, value: float) -> str:
    """What is added to scores (N, heads, tokens, keys) for a mask.

    It holds ones and zeros, (N, keys), (N, tokens, keys) or (N, 1, tokens, keys), or the number of keys that are seen of each, (N).
    """
    shape = s.found.shape(name)
    if shape is None or len(shape) not in (1, 2, 3, 4):
        raise s.refuse(f"the rank of its mask {name!r} cannot be worked out")
    if len(shape) == 1 and shape != s.shape()[:1]:
        raise s.refuse("its mask tells where sequences begin and end, and not which keys are seen")
    if len(shape) == 1:
        name = s.write("Less", np.arange(keys, dtype=np.int32)[None], s.write("Unsqueeze", name, [1]))
    mask = s.write("Cast", name, to=int(helper.np_dtype_to_tensor_dtype(s.dtype)))
    mask = s.write("Unsqueeze", mask, {1: [1, 2], 2: [1, 2], 3: [1]}[len(shape)]) if len(shape) < 4 else mask
    return s.write("Mul", s.write("Sub", 1.0, mask), value)


@lowering("com.microsoft.Attention")
def _attention(s: Scratch) -> str:
    """Inputs: tokens (N, T, D), weights of the projections (D, Dq + Dk + Dv), bias, mask, past, what is added to the scores."""
    _no_past(s, (4, 6), (1,))
    if s.integer("do_rotary", 0):
        raise s.refuse("it rotates its queries and keys")
    heads, tokens = s.integer("num_heads", 1), s.shape()[1]
    total = s.shape(1)[1]
    widths = [int(w) for w in cast("Sequence[int]", s.attributes.get("qkv_hidden_sizes", (total // 3,) * 3))]
    projected = s.write("MatMul", s.inputs[0], s.inputs[1])
    if s.get(2):
        projected = s.write("Add", projected, s.inputs[2])
    ends = [0, *np.cumsum(widths).tolist()]
    q, k, v = (_heads(s, s.write("Slice", projected, [a], [b], [2]), heads) for a, b in itertools.pairwise(ends))
    masks = _masks(s, s.get(3), tokens, tokens)
    return _joined(s, _attended(s, q, k, v, s.real("scale", 0.0) or 1 / math.sqrt(widths[0] // heads), masks))


def _masks(s: Scratch, seen: str, tokens: int, keys: int) -> list[str | np.ndarray]:
    """What is added to the scores: for keys that are not seen or come later, and as the node's sixth input has it."""
    value = s.real("mask_filter_value", _MASKED)
    found: list[str | np.ndarray] = [_hidden(s, seen, keys, value)] if seen else []
    if s.integer("unidirectional", 0):
        found.append(_later(s, tokens, keys, value))
    return [*found, s.inputs[5]] if s.get(5) else found


@lowering("com.microsoft.MultiHeadAttention")
def _multi_head(s: Scratch) -> str:
    """Inputs: queries, keys, values, their bias, which keys are seen, what is added to the scores, past keys and values."""
    _no_past(s, (6, 7, 8, 9), (1, 2))
    if not s.get(1) or not s.get(2) or s.rank() != 3:
        raise s.refuse("its queries, keys and values are packed into one value")
    if any(s.node.output[3:]):
        raise s.refuse("its scores are handed on")
    heads, width = s.integer("num_heads", 1), s.shape()[2]
    q, k, v = s.inputs[:3]
    if s.get(3):
        ends = [0, width, 2 * width, s.shape(3)[0]]
        if s.rank(1) != 3 or s.rank(2) != 3:
            raise s.refuse("it has a bias for keys that are in heads already")
        q, k, v = (
            s.write("Add", t, s.write("Slice", s.inputs[3], [a], [b], [0]))
            for t, (a, b) in zip((q, k, v), itertools.pairwise(ends), strict=True)
        )
    tokens, keys = s.shape()[1], s.shape(1)[-2]
    q = _heads(s, q, heads)
    k, v = (t if s.rank(i) == 4 else _heads(s, t, heads) for i, t in ((1, k), (2, v)))
    masks = _masks(s, s.get(4), tokens, keys)
    return _joined(s, _attended(s, q, k, v, s.real("scale", 0.0) or 1 / math.sqrt(width // heads), masks))


@lowering("com.microsoft.GroupQueryAttention")
def _group_query(s: Scratch) -> str:
    """Inputs: queries, keys, values, past keys, past values, index of each sequence's last token, number of tokens, and more."""
    _no_past(s, (), (1, 2))
    for i in (3, 4):
        if s.get(i) and 0 not in s.shape(i):
            raise s.refuse("it takes keys of earlier calls, and a sample is audited by itself. Export the model without a cache")
    tokens, last = s.shape()[1], s.found.values.get(s.get(5))
    if last is None or (last != tokens - 1).any():
        raise s.refuse("not every sequence is known to fill its tokens")
    if not s.get(1) or not s.get(2):
        raise s.refuse("its queries, keys and values are packed into one value")
    odd = [a for a in ("do_rotary", "smooth_softmax", "qk_output") if s.integer(a, 0)]
    odd += ["local_window_size"] if s.integer("local_window_size", -1) > 0 else []
    odd += ["head_sink, or another of its further inputs"] if any(s.inputs[9:]) else []
    if odd:
        raise s.refuse(f"it has {odd[0]}")
    heads, shared = s.integer("num_heads", 1), s.integer("kv_num_heads", 1)
    q, k, v = (_heads(s, t, h) for t, h in zip(s.inputs[:3], (heads, shared, shared), strict=True))
    width, each = s.shape()[2] // heads, heads // shared
    if each > 1:
        k, v = (
            s.write("Reshape", s.write("Concat", *[s.write("Unsqueeze", t, [2])] * each, axis=2), [0, heads, tokens, -1])
            for t in (k, v)
        )
    masks = [_later(s, tokens, tokens, float(np.finfo(s.dtype).min) / 2)]
    scale = s.real("scale", 0.0) or 1 / math.sqrt(width)
    return _joined(s, _attended(s, q, k, v, scale, masks, s.real("softcap", 0.0)))


@lowering("com.microsoft.RotaryEmbedding")
def _rotary(s: Scratch) -> str:
    """Inputs: tokens (N, T, D) or (N, heads, T, D/heads), positions (1) or (N, T), cosines and sines (positions, half a width)."""
    x, flat = s.inputs[0], s.rank() == 3
    if s.integer("is_packed_batching", 0):
        raise s.refuse("its sequences are packed into one")
    tokens, half = s.shape()[-2], s.shape(2)[1]
    width = s.integer("rotary_embedding_dim", 0)
    heads = s.integer("num_heads", 0) if width or s.integer("num_heads", 0) else s.shape()[-1] // (2 * half)
    if flat:
        x = _heads(s, x, heads)
    span = s.shape()[-1] // heads if flat else s.shape()[-1]
    width = width or span
    positions = s.inputs[1]
    if (one := s.found.shape(positions)) is not None and len(one) == 1:
        positions = s.write("Add", s.write("Reshape", positions, [1, 1]), np.arange(tokens)[None])
    cos, sin = (s.write("Unsqueeze", s.write("Gather", t, positions, axis=0), [1]) for t in s.inputs[2:4])
    turned = x if width == span else s.write("Slice", x, [0], [width], [3])
    if s.integer("interleaved", 0):
        pairs = s.write("Reshape", turned, [0, 0, 0, width // 2, 2])
        a, b = (s.write("Squeeze", s.write("Slice", pairs, [i], [i + 1], [4]), [4]) for i in (0, 1))
    else:
        a, b = (s.write("Slice", turned, [i], [i + width // 2], [3]) for i in (0, width // 2))
    first = s.write("Sub", s.write("Mul", a, cos), s.write("Mul", b, sin))
    second = s.write("Add", s.write("Mul", b, cos), s.write("Mul", a, sin))
    if s.integer("interleaved", 0):
        joined = s.write("Concat", s.write("Unsqueeze", first, [4]), s.write("Unsqueeze", second, [4]), axis=4)
        y = s.write("Reshape", joined, [0, 0, 0, width])
    else:
        y = s.write("Concat", first, second, axis=3)
    if width != span:
        y = s.write("Concat", y, s.write("Slice", x, [width], [span], [3]), axis=3)
    scale = s.real("scale", 1.0)
    y = y if scale == 1.0 else s.write("Mul", y, scale)
    return _joined(s, y) if flat else y


@lowering("com.microsoft.EmbedLayerNormalization")
def _embedded(s: Scratch) -> str:
    """Inputs: words, segments, three tables, γ, β, mask, positions. Outputs: normalised, length of each, the sum of embeddings."""
    words, segments, *tables = s.inputs[:5]
    tokens = s.shape()[1]
    positions = s.get(8) or np.arange(tokens, dtype=np.int64)[None]
    total = s.write("Add", s.write("Gather", tables[0], words), s.write("Gather", tables[1], positions))
    if segments:
        total = s.write("Add", total, s.write("Gather", tables[2], segments))
    s.further[2] = total
    if s.get(7):
        s.further[1] = s.write("ReduceSum", s.inputs[7], [1], keepdims=0)
    else:
        none = s.write("Mul", s.write("ReduceSum", words, [1], keepdims=0), s.write("Cast", 0.0, to=s.found.elem[words]))
        s.further[1] = s.write("Cast", none, to=int(TensorProto.INT32))
    return s.write("LayerNormalization", total, s.inputs[5], s.inputs[6], axis=-1, epsilon=s.real("epsilon", 1e-12))
