"""Weights packed as `MatMulNBits` and `MatMulBnb4` read them, with what they stand for in float64."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnxfim.graph.packed_weights import _TABLES

MS = "com.microsoft"


@dataclass(frozen=True)
class Packed:
    """Inputs of the operator behind A (None where left out), its attributes, and the weights (N, K) in float64."""

    inputs: tuple[np.ndarray | None, ...]
    attributes: dict[str, int]
    weights: np.ndarray


def packed(q: np.ndarray, bits: int) -> np.ndarray:
    """Numbers of ``bits`` bits along the last axis as bytes, the first in the lowest bits."""
    each = 8 // bits
    short = -q.shape[-1] % each
    q = np.concatenate([q, np.zeros((*q.shape[:-1], short), q.dtype)], axis=-1)
    parts = q.reshape(*q.shape[:-1], -1, each).astype(np.uint16)
    return (parts << (bits * np.arange(each, dtype=np.uint16))).sum(axis=-1).astype(np.uint8)


def n_bits(
    rng: np.random.Generator, n: int, k: int, *, bits: int = 4, block: int = 32, zeros: str = "none", grouped: bool = False,
    bias: bool = False, accuracy: int = 0, dtype: type = np.float32,
) -> Packed:  # fmt: skip
    """Random weights of MatMulNBits; ``zeros`` is "none", "packed" or "float", ``grouped`` adds the block of each row of W."""
    blocks = -(-k // block)
    q = rng.integers(0, 2**bits, (n, blocks, block))
    scales = rng.uniform(0.01, 0.05, (n, blocks)).astype(dtype)
    zero = np.full((n, blocks), 2 ** (bits - 1)) if zeros == "none" else rng.integers(0, 2**bits, (n, blocks))
    order = np.sort(rng.integers(0, blocks, k)) if grouped else np.arange(k) // block
    flat = q.reshape(n, -1)[:, :k].astype(np.float64)
    W = (flat - zero[:, order]) * scales.astype(np.float64)[:, order]
    stored = {"none": None, "packed": packed(zero, bits).reshape(-1), "float": zero.astype(dtype).reshape(-1)}[zeros]
    added = rng.standard_normal(n).astype(dtype) if bias else None
    inputs = (packed(q, bits), scales.reshape(-1), stored, order.astype(np.int32) if grouped else None, added)
    return Packed(inputs, {"N": n, "K": k, "bits": bits, "block_size": block, "accuracy_level": accuracy}, W)


def four_bit_floats(rng: np.random.Generator, n: int, k: int, *, block: int = 64, kind: int = 1) -> Packed:
    """Random weights of MatMulBnb4: FP4 (0) or NF4 (1)."""
    count = n * k
    q = rng.integers(0, 16, count + count % 2)
    largest = rng.uniform(0.2, 0.6, -(-count // block)).astype(np.float32)
    W = np.asarray(_TABLES[kind])[q[:count]] * np.repeat(largest.astype(np.float64), block)[:count]
    inputs = ((q[0::2] << 4 | q[1::2]).astype(np.uint8), largest)
    return Packed(inputs, {"N": n, "K": k, "block_size": block, "quant_type": kind}, W.reshape(n, k))
