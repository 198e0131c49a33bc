"""Write the operators of classical models (domain ai.onnx.ml) out, as ONNX Runtime computes them.

Their results are float32 whatever the input's type. What the standard leaves open (one row of scores for two classes, transforms of
them, the iteration that couples probabilities of pairs) is ONNX Runtime's: the copy is held against the file before it is used.

Source: the operators' definitions, https://onnx.ai/onnx/operators/index_ai_onnx_ml.html; behaviour measured on ONNX Runtime 1.31.
"""

from __future__ import annotations

from typing import Any, TypeAlias, cast

import numpy as np
from onnx import TensorProto

from onnxfim.graph.lower import Scratch, lowering

Array: TypeAlias = np.ndarray[Any, Any]

_FLOAT, _DOUBLE = np.dtype(np.float32), np.dtype(np.float64)
_NEARLY_ZERO = 1e-7  # what SOFTMAX_ZERO takes for zero
_ROUNDS = 6  # of the coupling of pairs that are written out; 200 random draws of up to 50 classes took 6 at most
_MOST_COUPLED = 32  # classes, past which that many rounds are too many nodes


def _matrix(s: Scratch) -> str:
    """The first input as float32, (N, features)."""
    if s.rank() != 2:
        raise s.refuse(f"its input has {s.rank()} axes, rows of features have 2")
    return _floats(s, s.inputs[0])


def _floats(s: Scratch, name: str) -> str:
    s.dtype = _FLOAT
    return name if s.found.elem.get(name) == TensorProto.FLOAT else s.write("Cast", name, to=TensorProto.FLOAT)


def _numbers(s: Scratch, name: str) -> Array:
    return np.asarray(cast("Any", s.attributes.get(name, ())), np.float32).reshape(-1)


def _word(s: Scratch, name: str, default: str) -> str:
    return str(s.attributes.get(name, default))


# linear models


@lowering("ai.onnx.ml.Scaler")
def _scaler(s: Scratch) -> str:
    x = _floats(s, s.inputs[0])
    offset, scale = (np.asarray(s.attributes.get(k, d), s.dtype) for k, d in (("offset", 0.0), ("scale", 1.0)))
    return s.write("Mul", s.write("Sub", x, offset), scale)


@lowering("ai.onnx.ml.LinearRegressor")
def _linear_regressor(s: Scratch) -> str:
    x, targets = _matrix(s), s.integer("targets", 1)
    given = _numbers(s, "intercepts")
    scores = s.write("Gemm", x, _numbers(s, "coefficients").reshape(targets, -1), given if given.size == targets else "", transB=1)
    transform = _word(s, "post_transform", "NONE")
    return scores if targets == 1 and transform != "PROBIT" else _transformed(s, scores, transform)


@lowering("ai.onnx.ml.LinearClassifier")
def _linear_classifier(s: Scratch) -> str:
    """One row of scores s for two classes gives (1 − s, s), or (σ(−s), σ(s))."""
    x, b = _matrix(s), _numbers(s, "intercepts")
    W = _numbers(s, "coefficients").reshape(max(b.size, 1), -1)
    transform = _word(s, "post_transform", "NONE")
    if b.size == 1 and _labels(s) == 2:
        W, b = np.concatenate([-W, W]), np.concatenate([(0 if transform == "LOGISTIC" else 1) - b, b])
        transform = transform if transform in ("LOGISTIC", "PROBIT") else "NONE"
    scores = s.write("Gemm", x, W, b, transB=1)
    s.further[1] = _transformed(s, scores, transform)
    return _label(s, s.write("ArgMax", scores, axis=1, keepdims=0))


def _labels(s: Scratch) -> int:
    return len(cast("Any", s.attributes.get("classlabels_ints") or s.attributes.get("classlabels_strings") or ()))


def _label(s: Scratch, index: str) -> str:
    """The predicted label; its index where labels are strings, which nothing that has a slope reads."""
    labels = s.attributes.get("classlabels_ints")
    return s.write("Gather", np.asarray(labels, np.int64), index) if labels else index


def _transformed(s: Scratch, scores: str, transform: str) -> str:
    """Scores (N, K) as the node's ``post_transform`` gives them out."""
    if transform == "NONE":
        return scores
    if transform == "SOFTMAX":
        return s.write("Softmax", scores, axis=1)
    if transform == "LOGISTIC":
        return s.write("Sigmoid", scores)
    if transform == "SOFTMAX_ZERO":
        return _softmax_without_zeros(s, scores)
    return _probit(s, scores)


def _softmax_without_zeros(s: Scratch, scores: str) -> str:
    """A softmax over the scores that are not zero; those that are stay as good as zero."""
    top = s.write("ReduceMax", scores, [1])
    counts = s.write("Greater", s.write("Abs", scores), _NEARLY_ZERO)
    shares = s.write("Exp", s.write("Sub", scores, top))
    total = s.write("ReduceSum", s.write("Mul", shares, s.write("Cast", counts, to=TensorProto.FLOAT)), [1])
    least = s.write("Mul", scores, s.write("Exp", s.write("Neg", top)))
    return s.write("Div", s.write("Where", counts, shares, least), total)


def _probit(s: Scratch, scores: str) -> str:
    """√2 erf⁻¹(2s − 1) by Winitzki's approximation, as the runtime has it."""
    t = s.write("Sub", s.write("Mul", scores, 2.0), 1.0)
    log = s.write("Log", s.write("Mul", s.write("Sub", 1.0, t), s.write("Add", t, 1.0)))
    v = s.write("Add", s.write("Mul", log, 0.5), 2 / (3.14159 * 0.147))
    root = s.write("Sqrt", s.write("Sub", s.write("Mul", v, v), s.write("Mul", log, 1 / 0.147)))
    size = s.write("Sqrt", s.write("Sub", root, v))
    return s.write("Mul", s.write("Where", s.write("Less", t, 0.0), s.write("Neg", size), size), 2**0.5)


# support vector machines


def _kernels(s: Scratch, x: str, vectors: Array) -> str:
    """Kernels of the rows with each of the vectors (V, features), (N, V)."""
    kind = _word(s, "kernel_type", "LINEAR")
    gamma, constant, degree = (float(v) for v in (*_numbers(s, "kernel_params"), 0.0, 0.0, 0.0)[:3])
    if kind == "RBF":  # about the vectors' mean, so that squares of large inputs do not cancel
        mean = vectors.mean(axis=0)
        near = (vectors - mean).astype(np.float64)
        centred = s.write("Sub", x, mean)
        square = s.write("ReduceSum", s.write("Mul", centred, centred), [1])
        apart = s.write("Gemm", centred, near.astype(np.float32), (near**2).sum(axis=1).astype(np.float32), alpha=-2.0, transB=1)
        return s.write("Exp", s.write("Mul", s.write("Add", apart, square), -gamma))
    if kind == "LINEAR":
        return s.write("Gemm", x, vectors, "", transB=1)
    t = s.write("Gemm", x, vectors, np.full(1, constant, np.float32), alpha=gamma, transB=1)
    if kind == "SIGMOID":
        return s.write("Tanh", t)
    if degree in (1.0, 2.0, 3.0):
        power = t
        for _ in range(int(degree) - 1):
            power = s.write("Mul", power, t)
        return power
    return s.write("Pow", t, degree)


@lowering("ai.onnx.ml.SVMRegressor")
def _svm_regressor(s: Scratch) -> str:
    x, count = _matrix(s), s.integer("n_supports", 0)
    rho, weights = _numbers(s, "rho")[:1], _numbers(s, "coefficients").reshape(1, -1)
    rows = _kernels(s, x, _numbers(s, "support_vectors").reshape(count, -1)) if count else x
    y = s.write("Gemm", rows, weights, rho, transB=1)
    if s.integer("one_class", 0):
        y = s.write("Where", s.write("Greater", y, 0.0), 1.0, -1.0)
    return y


@lowering("ai.onnx.ml.SVMClassifier")
def _svm_classifier(s: Scratch) -> str:
    """Decision values of all pairs of classes, or probabilities coupled from them; without vectors, scores of a linear model."""
    x, classes = _matrix(s), _labels(s)
    transform = _word(s, "post_transform", "NONE")
    sizes = [int(n) for n in cast("Any", s.attributes.get("vectors_per_class") or ())]
    if not sum(sizes):
        W = _numbers(s, "coefficients").reshape(classes, -1)
        scores = s.write("Gemm", x, W, _numbers(s, "rho")[:1], transB=1)
        s.further[1] = _transformed(s, scores, transform)
        return _label(s, s.write("ArgMax", scores, axis=1, keepdims=0))
    kernels = _kernels(s, x, _numbers(s, "support_vectors").reshape(sum(sizes), -1))
    pairs = [(i, j) for i in range(classes) for j in range(i + 1, classes)]
    decided = s.write("Gemm", kernels, _pair_weights(s, sizes, pairs), _numbers(s, "rho")[: len(pairs)])
    if _numbers(s, "prob_a").size:
        s.further[1] = _transformed(s, _coupled(s, decided, classes, pairs), transform)
    elif classes > 2:
        s.further[1] = _transformed(s, decided, transform)
    else:
        s.further[1] = _two_sided(s, decided, transform)
    return _label(s, s.write("ArgMax", _votes(s, decided, classes, pairs), axis=1, keepdims=0))


def _pair_weights(s: Scratch, sizes: list[int], pairs: list[tuple[int, int]]) -> Array:
    """Weight of each vector in the decision of each pair, (V, pairs): row j − 1 for class i, row i for class j."""
    total = sum(sizes)
    rows = _numbers(s, "coefficients")[: (len(sizes) - 1) * total].reshape(len(sizes) - 1, total)
    ends = np.cumsum([0, *sizes])
    weights = np.zeros((total, len(pairs)), np.float32)
    for k, (i, j) in enumerate(pairs):
        of_i, of_j = slice(ends[i], ends[i + 1]), slice(ends[j], ends[j + 1])
        weights[of_i, k], weights[of_j, k] = rows[j - 1, of_i], rows[i, of_j]
    return weights


def _two_sided(s: Scratch, decided: str, transform: str) -> str:
    if transform == "PROBIT":
        raise s.refuse("ONNX Runtime leaves one of two PROBIT scores unwritten")
    ends = np.array([[-1.0, 1.0]], np.float32)
    sides = s.write("MatMul", decided, ends)
    if transform == "LOGISTIC":
        return s.write("Sigmoid", sides)
    return sides if transform == "NONE" else s.write("Add", sides, np.array([1.0, 0.0], np.float32))


def _votes(s: Scratch, decided: str, classes: int, pairs: list[tuple[int, int]]) -> str:
    """How many of its pairs each class wins, (N, classes)."""
    won = s.write("Cast", s.write("Greater", decided, 0.0), to=TensorProto.FLOAT)
    gain = np.zeros((len(pairs), classes), np.float32)
    base = np.zeros(classes, np.float32)
    for k, (i, j) in enumerate(pairs):
        gain[k, i], gain[k, j] = 1, -1
        base[j] += 1
    return s.write("Gemm", won, gain, base)


def _coupled(s: Scratch, decided: str, classes: int, pairs: list[tuple[int, int]]) -> str:
    """Probabilities of the classes from those of all pairs, by the iteration that the runtime stops early.

    With r_ij the probability of i against j, p minimises Σ (r_ji p_i − r_ij p_j)²; the iteration ends where its conditions hold to
    0.005 / K, short of the minimum, so it is written out as it runs. Rows that it does not finish in these rounds give NaN.

    Source: Wu, Lin, Weng (2004), JMLR 5, algorithm 2; as libsvm and ONNX Runtime have it.
    """
    if classes > _MOST_COUPLED:
        raise s.refuse(f"probabilities of {classes} classes are coupled by an iteration that is too long to be written out")
    s.dtype = _DOUBLE  # numbers next to 1 in float32 would hide the slopes of the last rounds
    a, b = (_numbers(s, n)[: len(pairs)].astype(_DOUBLE) for n in ("prob_a", "prob_b"))
    t = s.write("Add", s.write("Mul", s.write("Cast", decided, to=TensorProto.DOUBLE), a), b)
    r = s.write("Min", s.write("Max", s.write("Sigmoid", s.write("Neg", t)), 1e-7), 1 - 1e-7)
    against = s.write("Sub", 1.0, r)
    # Of the matrix r with zero diagonal, entry (i, j) the probability of i against j, and its transpose, as rows of K² numbers.
    upper, lower = (np.zeros((len(pairs), classes * classes)) for _ in range(2))
    for k, (i, j) in enumerate(pairs):
        upper[k, i * classes + j] = lower[k, j * classes + i] = 1
    square = [0, classes, classes]
    ours = s.write("Reshape", s.write("Add", s.write("MatMul", r, upper), s.write("MatMul", against, lower)), square)
    theirs = s.write("Transpose", ours, perm=[0, 2, 1])
    diagonal = s.write("ReduceSum", s.write("Mul", theirs, theirs), [2], keepdims=0)  # (N, K): Q_ii = Σ_j r_ji²
    eye = np.eye(classes)
    Q = s.write("Sub", s.write("Mul", s.write("Unsqueeze", diagonal, [2]), eye), s.write("Mul", ours, theirs))
    p = s.write("Add", s.write("Mul", diagonal, 0.0), 1 / classes)  # (N, K), of the batch's length
    own = [s.write("Gather", diagonal, [i], axis=1) for i in range(classes)]
    rows = [s.write("Squeeze", s.write("Gather", Q, [i], axis=1), [1]) for i in range(classes)]
    for _ in range(_ROUNDS):
        Qp, pQp, done = _conditions(s, Q, p, classes)
        moved = p
        for i in range(classes):
            step = s.write("Div", s.write("Sub", pQp, at := s.write("Gather", Qp, [i], axis=1)), own[i])
            grown = s.write("Add", step, 1.0)
            bent = s.write("Add", s.write("Mul", step, own[i]), s.write("Mul", at, 2.0))
            pQp = s.write("Div", s.write("Add", pQp, s.write("Mul", step, bent)), s.write("Mul", grown, grown))
            Qp = s.write("Div", s.write("Add", Qp, s.write("Mul", rows[i], step)), grown)
            moved = s.write("Div", s.write("Add", moved, s.write("Mul", step, eye[i])), grown)
        p = s.write("Where", done, p, moved)
    *_, done = _conditions(s, Q, p, classes)
    p = s.write("Cast", s.write("Where", done, p, float("nan")), to=TensorProto.FLOAT)
    s.dtype = _FLOAT
    return p


def _conditions(s: Scratch, Q: str, p: str, classes: int) -> tuple[str, str, str]:
    """Qp (N, K), pᵀQp (N, 1), and whether they agree to what the iteration stops at (N, 1)."""
    Qp = s.write("Squeeze", s.write("MatMul", Q, s.write("Unsqueeze", p, [2])), [2])
    pQp = s.write("ReduceSum", s.write("Mul", p, Qp), [1])
    worst = s.write("ReduceMax", s.write("Abs", s.write("Sub", Qp, pQp)), [1])
    return Qp, pQp, s.write("Less", worst, 0.005 / classes)


# features


@lowering("ai.onnx.ml.Normalizer")
def _normalizer(s: Scratch) -> str:
    """Rows divided by their norm; MAX is the largest entry, not the largest size. A row of norm zero stays as it is."""
    x, kind = _matrix(s), _word(s, "norm", "MAX")
    square = kind == "L2"
    size = s.write({"MAX": "ReduceMax", "L1": "ReduceL1", "L2": "ReduceSumSquare"}[kind], x, [1])
    size = s.write("Where", s.write("Equal", size, 0.0), 1.0, size)
    return s.write("Div", x, s.write("Sqrt", size) if square else size)


@lowering("ai.onnx.ml.Imputer")
def _imputer(s: Scratch) -> str | None:
    """Entries that are missing get a value of their column; they have no slope."""
    fill, x = _numbers(s, "imputed_value_floats"), s.inputs[0]
    if not fill.size or s.found.elem.get(x) != TensorProto.FLOAT:
        return None
    missing = s.real("replaced_value_float", 0.0)
    columns = s.shape()[-1]
    where = s.write("IsNaN", x) if np.isnan(missing) else s.write("Equal", x, missing)
    return s.write("Where", where, fill if fill.size == columns else fill[:1], x)


@lowering("ai.onnx.ml.FeatureVectorizer")
def _feature_vectorizer(s: Scratch) -> str:
    """Columns of all inputs side by side, each cut or filled with zeros to the length that the node says."""
    widths = [int(n) for n in cast("Any", s.attributes.get("inputdimensions") or ())]
    parts = []
    for k, (name, width) in enumerate(zip(s.inputs, widths, strict=True)):
        if len(s.shape(k)) < 2:
            raise s.refuse("an input has no axis of features")
        flat = s.write("Flatten", _floats(s, name), axis=1)
        given = int(np.prod(s.shape(k)[1:]))
        if given > width:
            flat = s.write("Slice", flat, [0], [width], [1])
        elif given < width:
            flat = s.write("Pad", flat, [0, 0, 0, width - given], 0.0)
        parts.append(flat)
    return s.write("Concat", *parts, axis=1)


@lowering("ai.onnx.ml.ArrayFeatureExtractor")
def _array_feature_extractor(s: Scratch) -> str:
    """Columns by their number; a vector gives one row."""
    picked = s.write("Gather", s.inputs[0], s.write("Reshape", s.inputs[1], [-1]), axis=-1)
    return picked if s.rank() > 1 else s.write("Unsqueeze", picked, [0])


@lowering("ai.onnx.ml.Binarizer")
def _binarizer(s: Scratch) -> str:
    above = s.write("Greater", s.inputs[0], s.real("threshold", 0.0))
    return s.write("Cast", above, to=s.found.elem.get(s.inputs[0], TensorProto.FLOAT))


@lowering("ai.onnx.ml.OneHotEncoder")
def _one_hot(s: Scratch) -> str | None:
    """Whether an entry is each of the categories: steps, without a slope."""
    labels = s.attributes.get("cats_int64s")
    if not labels or s.found.elem.get(s.inputs[0], TensorProto.STRING) == TensorProto.STRING:
        return None
    entry = s.write("Unsqueeze", s.write("Cast", s.inputs[0], to=TensorProto.INT64), [-1])
    return s.write("Cast", s.write("Equal", entry, np.asarray(labels, np.int64)), to=TensorProto.FLOAT)
