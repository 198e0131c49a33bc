"""scikit-learn's models, as skl2onnx writes them. Their truth is scikit-learn's own float64, by differences of fourth order."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from skl2onnx import to_onnx
from sklearn.datasets import load_digits, load_iris
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis, QuadraticDiscriminantAnalysis
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier, VotingClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression, RidgeClassifier, SGDClassifier
from sklearn.multiclass import OneVsRestClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, Normalizer, PolynomialFeatures, StandardScaler
from sklearn.svm import SVC, LinearSVC

from tests.exporters import truth
from tests.exporters.recipe import Array, Made, Recipes

RECIPES = Recipes("skl2onnx")
_DIGITS, _IRIS = load_digits(), load_iris()
X, Y = (_DIGITS.data / 16).astype(np.float32), _DIGITS.target
FLOWERS, KINDS = _IRIS.data.astype(np.float32), _IRIS.target
TWO = (Y > 4).astype(np.int64)
TENSOR: Mapping[str, Any] = {"zipmap": False}
SHOWN = 16


def _log_probabilities(model: Any) -> Callable[[Array], Array]:
    def logits(rows: Array) -> Array:
        p = model.predict_proba(rows)
        return np.log(np.maximum(p, np.finfo(np.float64).tiny))

    return logits


def _made(
    path: Path, build: Callable[[], Any], data: Array, labels: Array, options: Mapping[str, Any] | None, scores: str | None
) -> Made:
    """Fit, write and take the truth of ``scores``: of a method's name, "log" of the probabilities, None where there is none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = build().fit(data, labels)
        last = model.steps[-1][1] if hasattr(model, "steps") else model
        proto = to_onnx(model, data[:1], options=None if options is None else {id(last): dict(options)})
    path.write_bytes(proto.SerializeToString())
    some = slice(None, None, len(data) // SHOWN)
    rows, y = data[some][:SHOWN], labels[some][:SHOWN]
    if scores is None:
        return Made({"inputs": rows}, y)
    if scores != "log":
        return Made({"inputs": rows}, y, truth.by_differences(getattr(model, scores), rows))
    found = truth.by_differences(_log_probabilities(model), rows)
    # Of probabilities the logits are known up to a constant: their own Jacobian is not.
    return Made({"inputs": rows}, y, truth.Truth(found.lam, np.full_like(found.norm, np.nan)))


def _add(
    name: str,
    build: Callable[[], Any],
    data: Array = X,
    labels: Array = Y,
    *,
    options: Mapping[str, Any] | None = TENSOR,
    scores: str | None = "log",
) -> None:
    RECIPES.add(f"sk_{name}", lambda path: _made(path, build, data, labels, options, scores))


def _logistic() -> Any:
    return LogisticRegression(max_iter=500)


_add("logreg", _logistic)
_add("logreg_zipmap", _logistic, options={})
_add("logreg_raw", _logistic, options={"zipmap": False, "raw_scores": True}, scores="decision_function")
_add("logreg_columns", _logistic, FLOWERS, KINDS, options={"zipmap": "columns"})
_add("logreg_binary", _logistic, X, TWO)
_add("logreg_ovr", lambda: OneVsRestClassifier(_logistic()))
_add("mlp", lambda: MLPClassifier((32,), max_iter=150, random_state=0))
_add("mlp_tanh_binary", lambda: MLPClassifier((16,), activation="tanh", max_iter=150, random_state=0), X, TWO)
_add("scaler_pca_mlp", lambda: make_pipeline(StandardScaler(), PCA(20), MLPClassifier((32,), max_iter=100, random_state=0)))
_add("minmax_logreg", lambda: make_pipeline(MinMaxScaler(), _logistic()), FLOWERS, KINDS)
_add("poly_logreg", lambda: make_pipeline(PolynomialFeatures(2), LogisticRegression(max_iter=800)), FLOWERS, KINDS)
_add("norm_logreg", lambda: make_pipeline(Normalizer(), LogisticRegression(max_iter=800)))
_add("svc_rbf", lambda: SVC(probability=True, random_state=0), X[:600], Y[:600], scores=None)
_add("svc_votes", lambda: SVC(decision_function_shape="ovr"), X[:600], Y[:600], scores=None)
_add("linearsvc", LinearSVC, options=None, scores="decision_function")
_add("ridge", RidgeClassifier, options=None, scores="decision_function")
_add("lda", LinearDiscriminantAnalysis)
_add("qda", lambda: QuadraticDiscriminantAnalysis(reg_param=0.1), FLOWERS, KINDS)
_add("gnb", lambda: GaussianNB(var_smoothing=1e-2))
_add("knn", lambda: KNeighborsClassifier(5), X[:500], Y[:500], scores=None)
_add("forest", lambda: RandomForestClassifier(20, max_depth=6, random_state=0), scores=None)
_add("boosting", lambda: GradientBoostingClassifier(n_estimators=8), FLOWERS, KINDS, scores=None)
_add(
    "voting",
    lambda: VotingClassifier(
        [("a", _logistic()), ("b", MLPClassifier((16,), max_iter=80, random_state=0))], voting="soft", flatten_transform=False
    ),
)
_add("sgd_log", lambda: SGDClassifier(loss="log_loss", random_state=0))


def _regression(path: Path) -> Made:
    model = LinearRegression().fit(X, Y)
    path.write_bytes(to_onnx(model, X[:1]).SerializeToString())
    rows = X[:: len(X) // SHOWN][:SHOWN]
    logits = lambda some: model.predict(some)[:, None]  # noqa: E731 - one line of a table
    return Made(
        {"inputs": rows}, None, truth.by_differences(logits, rows, truth.gaussian_lambda), options=("--output-kind", "gaussian")
    )


RECIPES.add("sk_regression", _regression)
