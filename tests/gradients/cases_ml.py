"""Random graphs of the operators of classical models; continues `cases`."""

from __future__ import annotations

import numpy as np

from tests.gradients.cases import Case, Rng, away, pick
from tests.support.gradient_nets import ROWS, Net, spread

CASES: list[Case] = []
ML = "ai.onnx.ml"
TRANSFORMS = ["NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO"]


def case(*ops: str, repeats: int = 2):
    def register(make):
        CASES.append(Case(tuple(f"{ML}.{op}" for op in ops), make.__name__, make, repeats))
        return make

    return register


def floats(rng: Rng, *shape: int) -> list[float]:
    return [float(v) for v in rng.normal(size=shape).ravel()]


def classifier(rng: Rng, features: int, rows: int, labels: int, transform: str) -> dict:
    return {
        "domain": ML, "outputs": 2, "coefficients": floats(rng, rows, features), "intercepts": floats(rng, rows),
        "post_transform": transform, "multi_class": int(rng.integers(2)), "classlabels_ints": list(range(labels)),
    }  # fmt: skip


@case("Scaler")
def scaler(rng: Rng) -> tuple[Net, str]:
    net = Net((4,))
    return net, net.op("Scaler", "x", domain=ML, offset=[0.1, 0.2, 0.3, 0.4], scale=[1.0, 2.0, 0.5, 1.5])


@case("Scaler")
def scaler_of_doubles(rng: Rng) -> tuple[Net, str]:
    net = Net((4,))
    scaled = net.op("Scaler", net.op("Cast", "x", to=11), domain=ML, offset=[0.3], scale=[2.0])
    return net, net.op("Tanh", scaled)


@case("LinearClassifier", repeats=8)
def linear_classifier(rng: Rng) -> tuple[Net, str]:
    net = Net((5,))
    rows = int(rng.integers(2, 5))
    given = classifier(rng, 5, rows, rows, str(pick(rng, TRANSFORMS)))
    return net, net.ops("LinearClassifier", "x", **given)[1]


@case("LinearClassifier", repeats=8)
def linear_classifier_of_one_row(rng: Rng) -> tuple[Net, str]:
    net = Net((5,))
    return net, net.ops("LinearClassifier", "x", **classifier(rng, 5, 1, 2, str(pick(rng, TRANSFORMS))))[1]


@case("LinearClassifier", repeats=3)
def linear_classifier_of_doubles_and_words(rng: Rng) -> tuple[Net, str]:
    net = Net((5,))
    given = classifier(rng, 5, 3, 3, "SOFTMAX")
    given.pop("classlabels_ints")
    return net, net.ops("LinearClassifier", net.op("Cast", "x", to=11), classlabels_strings=["a", "b", "c"], **given)[1]


@case("LinearClassifier", "LinearRegressor", repeats=4)
def probit(rng: Rng) -> tuple[Net, str]:
    """Of scores between .58 and .95: at ½ the approximation has a kink, beyond 1 no value."""
    net = Net((1,), x=spread(rng, ROWS, 1, low=-0.9, high=0.9), step=1e-2)
    if rng.random() < 0.5:
        given = {**classifier(rng, 1, 2, 2, "PROBIT"), "coefficients": [0.1, -0.15], "intercepts": [0.72, 0.75]}
        return net, net.ops("LinearClassifier", "x", **given)[1]
    targets = int(rng.integers(1, 3))
    given = {"coefficients": [0.1, -0.15][:targets], "intercepts": [0.72, 0.75][:targets], "targets": targets}
    return net, net.op("LinearRegressor", "x", domain=ML, post_transform="PROBIT", **given)


@case("LinearRegressor", repeats=6)
def linear_regressor(rng: Rng) -> tuple[Net, str]:
    net = Net((5,))
    targets = int(rng.integers(1, 4))
    given = {"intercepts": floats(rng, targets)} if rng.random() < 0.6 else {}
    transform = str(pick(rng, TRANSFORMS))
    return net, net.op(
        "LinearRegressor", "x", domain=ML, coefficients=floats(rng, targets, 5), targets=targets, post_transform=transform, **given
    )


def kernel(rng: Rng) -> dict:
    kind = str(pick(rng, ["LINEAR", "POLY", "RBF", "SIGMOID"]))
    degree = float(pick(rng, [1, 2, 3, 4]))
    return {"kernel_type": kind, "kernel_params": [float(rng.uniform(0.1, 0.4)), float(rng.uniform(0.5, 1)), degree]}


@case("SVMRegressor", repeats=8)
def svm_regressor(rng: Rng) -> tuple[Net, str]:
    net = Net((3,), x=spread(rng, ROWS, 3, low=-1, high=1))
    given = {"n_supports": 6, "support_vectors": floats(rng, 6, 3), "coefficients": floats(rng, 6), **kernel(rng)}
    if rng.random() < 0.25:
        given = {"n_supports": 0, "coefficients": floats(rng, 3), "kernel_type": "LINEAR", "kernel_params": [0.0, 0.0, 0.0]}
    return net, net.op("SVMRegressor", "x", domain=ML, rho=floats(rng, 1), **given)


@case("SVMRegressor")
def svm_of_one_class(rng: Rng) -> tuple[Net, str]:
    net = Net((3,), may_vanish=True)
    given = {"n_supports": 6, "support_vectors": floats(rng, 6, 3), "coefficients": floats(rng, 6), **kernel(rng)}
    side = net.op("SVMRegressor", "x", domain=ML, rho=[50.0], one_class=1, **given)
    return net, net.op("Add", "x", side)


def machine(rng: Rng, classes: int, features: int = 3) -> dict:
    sizes = [int(n) for n in rng.integers(1, 4, classes)]
    pairs = classes * (classes - 1) // 2
    return {
        "domain": ML, "outputs": 2, "vectors_per_class": sizes, "support_vectors": floats(rng, sum(sizes), features),
        "coefficients": floats(rng, classes - 1, sum(sizes)), "rho": floats(rng, pairs), "classlabels_ints": list(range(classes)),
        **kernel(rng),
    }  # fmt: skip


@case("SVMClassifier", repeats=10)
def svm_decisions(rng: Rng) -> tuple[Net, str]:
    net = Net((3,), x=spread(rng, ROWS, 3, low=-1, high=1))
    given = machine(rng, int(rng.integers(2, 5)))
    return net, net.ops("SVMClassifier", "x", post_transform=str(pick(rng, TRANSFORMS)), **given)[1]


@case("SVMClassifier", repeats=8)
def svm_probabilities(rng: Rng) -> tuple[Net, str]:
    """The number of rounds jumps between inputs: short steps do not cross."""
    net = Net((3,), x=spread(rng, ROWS, 3, low=-1, high=1), step=5e-3, rtol=5e-3)
    classes = int(rng.integers(2, 5))
    pairs = classes * (classes - 1) // 2
    given = {"prob_a": [float(-v) for v in rng.uniform(0.5, 2, pairs)], "prob_b": floats(rng, pairs), **machine(rng, classes)}
    return net, net.ops("SVMClassifier", "x", post_transform=str(pick(rng, ["NONE", "SOFTMAX"])), **given)[1]


@case("SVMClassifier", repeats=4)
def svm_without_vectors(rng: Rng) -> tuple[Net, str]:
    net = Net((3,))
    classes = int(rng.integers(2, 4))
    given = {"coefficients": floats(rng, classes, 3), "rho": [0.3], "classlabels_ints": list(range(classes)), **kernel(rng)}
    return net, net.ops("SVMClassifier", "x", domain=ML, outputs=2, post_transform=str(pick(rng, TRANSFORMS)), **given)[1]


@case("Normalizer", repeats=9)
def normalizer(rng: Rng) -> tuple[Net, str]:
    kind = str(pick(rng, ["MAX", "L1", "L2"]))
    x = spread(rng, ROWS, 4)
    x[:, 0] = rng.uniform(2.2, 3, ROWS)  # the largest entry stays it, and no norm is near zero
    x = np.where(np.abs(x) < 0.1, 0.1, x)
    net = Net((4,), x=x, rtol=3e-3)
    return net, net.op("Normalizer", "x", domain=ML, norm=kind)


@case("Imputer", repeats=4)
def imputer(rng: Rng) -> tuple[Net, str]:
    net = Net((4,), x=away(rng, spread(rng, ROWS, 4), (1.0,)))
    missing = float(pick(rng, [float("nan"), 77.0]))
    x = net.op("Where", net.op("Greater", "x", np.float32(1.0)), np.float32(missing), "x")
    fill = [9.0] if rng.random() < 0.5 else [1.0, 2.0, 3.0, 4.0]
    return net, net.op("Imputer", x, domain=ML, imputed_value_floats=fill, replaced_value_float=missing)


@case("FeatureVectorizer", repeats=4)
def feature_vectorizer(rng: Rng) -> tuple[Net, str]:
    net = Net((4, 2))
    kind = int(pick(rng, [1, 11]))
    parts = [net.op("Cast", net.op("Flatten", t, axis=1), to=kind) for t in ("x", net.op("Sin", "x"))]
    widths = [int(n) for n in rng.integers(4, 12, 2)]
    return net, net.op("FeatureVectorizer", *parts, domain=ML, inputdimensions=widths)


@case("ArrayFeatureExtractor", repeats=3)
def array_feature_extractor(rng: Rng) -> tuple[Net, str]:
    net = Net((2, 5) if rng.random() < 0.3 else (5,))
    return net, net.op("ArrayFeatureExtractor", "x", rng.integers(0, 5, (1, 3)), domain=ML)


@case("ArrayFeatureExtractor", "LinearClassifier")
def labels_as_numbers(rng: Rng) -> tuple[Net, str]:
    """What is read from a label has no slope; the rest has."""
    net = Net((5,))
    label = net.op("LinearClassifier", "x", **classifier(rng, 5, 3, 3, "NONE"))
    value = net.op("ArrayFeatureExtractor", rng.standard_normal(3), label, domain=ML)
    return net, net.op("Add", "x", net.op("Mul", net.op("Reshape", value, np.array([-1, 1])), np.float32(0)))


@case("Binarizer", "OneHotEncoder")
def steps_beside_a_slope(rng: Rng) -> tuple[Net, str]:
    net = Net((4,), x=spread(rng, ROWS, 4, low=0.1, high=0.9))
    flat = net.op("Binarizer", "x", domain=ML, threshold=5.0)
    hot = net.op("ReduceSum", net.op("OneHotEncoder", "x", domain=ML, cats_int64s=[0, 1, 2]), np.array([2]), keepdims=0)
    return net, net.op("Sum", "x", flat, hot)


def _reduce_prod(rng: Rng) -> tuple[Net, str]:
    """As polynomial features are written; a factor may be near zero."""
    net = Net((3, 4), opset=18)
    axes = [[1], [2], [1, 2], [-1]][int(rng.integers(4))]
    return net, net.op("ReduceProd", "x", np.array(axes), keepdims=int(rng.integers(2)))


CASES.append(Case(("ReduceProd",), "reduce_prod", _reduce_prod, 4))
