"""LSTM, GRU and RNN in float64, as the operators are defined, for every attribute: the slow twin of what is written out."""

from __future__ import annotations

import numpy as np


def _activation(name: str, alpha: float | None, beta: float | None):
    a = {"LeakyRelu": 0.01, "HardSigmoid": 0.2, "Elu": 1.0, "ThresholdedRelu": 1.0}.get(name, 0.0) if alpha is None else alpha
    b = {"HardSigmoid": 0.5}.get(name, 0.0) if beta is None else beta
    return {
        "Relu": lambda x: np.maximum(x, 0),
        "Tanh": np.tanh,
        "Sigmoid": lambda x: 1 / (1 + np.exp(-x)),
        "Affine": lambda x: a * x + b,
        "LeakyRelu": lambda x: np.where(x < 0, a * x, x),
        "ThresholdedRelu": lambda x: np.where(x > a, x, 0),
        "ScaledTanh": lambda x: a * np.tanh(b * x),
        "HardSigmoid": lambda x: np.clip(a * x + b, 0, 1),
        "Elu": lambda x: np.where(x < 0, a * np.expm1(x), x),
        "Softsign": lambda x: x / (1 + np.abs(x)),
        "Softplus": lambda x: np.log1p(np.exp(x)),
    }[name]


DEFAULT = {"RNN": ["Tanh"], "GRU": ["Sigmoid", "Tanh"], "LSTM": ["Sigmoid", "Tanh", "Tanh"]}
WITH_ALPHA = ("Affine", "LeakyRelu", "ThresholdedRelu", "ScaledTanh", "HardSigmoid", "Elu")
WITH_BETA = ("Affine", "ScaledTanh", "HardSigmoid")


def recurrent(op: str, X, W, R, B=None, lens=None, h0=None, c0=None, P=None, **attributes):
    """Y (T, D, N, H), Y_h (D, N, H) and Y_c (D, N, H) of X (T, N, I); with ``layout`` 1 the batch is first throughout."""
    layout = attributes.get("layout", 0)
    X = np.asarray(X, np.float64)
    if layout:
        X = X.transpose(1, 0, 2)
        h0, c0 = (None if s is None else s.transpose(1, 0, 2) for s in (h0, c0))
    T, N, _ = X.shape
    D, _, H = R.shape
    gates = {"RNN": 1, "GRU": 3, "LSTM": 4}[op]
    names = attributes.get("activations", DEFAULT[op] * D)
    alphas, betas = (list(attributes.get(f"activation_{k}", [])) for k in ("alpha", "beta"))
    functions = [
        _activation(n, alphas.pop(0) if n in WITH_ALPHA and alphas else None, betas.pop(0) if n in WITH_BETA and betas else None)
        for n in names
    ]
    each = len(DEFAULT[op])
    direction = attributes.get("direction", "forward")
    clip = attributes.get("clip")

    def clipped(v):
        return v if clip is None else np.clip(v, -clip, clip)

    Y, last_h, last_c = np.zeros((T, D, N, H)), np.zeros((D, N, H)), np.zeros((D, N, H))
    for d in range(D):
        f, g, *rest = [*functions[d * each : (d + 1) * each], None]
        W_, R_ = W[d].T.astype(float), R[d].T.astype(float)
        wb, rb = (np.zeros(gates * H),) * 2 if B is None else np.split(B[d].astype(float), 2)
        p = np.zeros(3 * H) if P is None else P[d].astype(float)
        backward = direction == "reverse" or d == 1
        for n in range(N):
            h = np.zeros(H) if h0 is None else h0[d, n].astype(float)
            c = np.zeros(H) if c0 is None else c0[d, n].astype(float)
            steps = T if lens is None else int(lens[n])
            for t in reversed(range(steps)) if backward else range(steps):
                x = X[t, n] @ W_ + wb
                if op == "RNN":
                    h = f(clipped(x + h @ R_ + rb))
                elif op == "GRU":
                    z, r = np.split(f(clipped((x + h @ R_ + rb)[: 2 * H])), 2)
                    inner = (
                        r * (h @ R_ + rb)[2 * H :]
                        if attributes.get("linear_before_reset")
                        else (r * h) @ R_[:, 2 * H :] + rb[2 * H :]
                    )
                    h = (1 - z) * g(clipped(x[2 * H :] + inner)) + z * h
                else:
                    i, o, forget, new = np.split(x + h @ R_ + rb, 4)
                    i = f(clipped(i + p[:H] * c))
                    forget = 1 - i if attributes.get("input_forget") else f(clipped(forget + p[2 * H :] * c))
                    c = forget * c + i * g(clipped(new))
                    h = f(clipped(o + p[H : 2 * H] * c)) * rest[0](c)
                Y[t, d, n] = h
            if steps:  # ONNX Runtime's zero for a sequence of no steps
                last_h[d, n], last_c[d, n] = h, c
    if layout:
        return Y.transpose(2, 0, 1, 3), last_h.transpose(1, 0, 2), last_c.transpose(1, 0, 2)
    return Y, last_h, last_c
