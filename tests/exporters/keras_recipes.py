"""Keras' models, as Keras itself or tf2onnx writes them; the truth is that of the same weights in float64."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
import keras
import numpy as np
import onnx
import tensorflow as tf
import tf2onnx
from keras import layers

from tests.exporters import truth
from tests.exporters.data import digits, levels
from tests.exporters.recipe import Array, Made, Recipes

RECIPES = Recipes("Keras")
X, Y = digits(400, 16, 1, last=True)
STEPS = X[..., 0].copy()
GREY = levels(X).astype(np.float32)
Build = Callable[[], Any]


def _cnn(softmax: bool = True, before: Any = None) -> Build:
    def build() -> Any:
        i = keras.Input((16, 16, 1))
        h = i if before is None else before()(i)
        h = layers.Conv2D(8, 3, padding="same", activation="relu")(h)
        h = layers.MaxPooling2D()(layers.BatchNormalization(momentum=0.8)(h))
        h = layers.GlobalAveragePooling2D()(layers.Conv2D(16, 3, strides=2, padding="same", activation="swish")(h))
        return keras.Model(i, layers.Dense(10, activation="softmax" if softmax else None)(layers.Dropout(0.1)(h)))

    return build


def _recurrent(kind: str) -> Build:
    def build() -> Any:
        i = keras.Input((16, 16))
        return keras.Model(i, layers.Dense(10, activation="softmax")(getattr(layers, kind)(16)(i)))

    return build


def _attention() -> Any:
    i = keras.Input((16, 16))
    h = layers.Dense(16)(i)
    n = layers.LayerNormalization()(h)
    h = layers.Add()([h, layers.MultiHeadAttention(2, 8)(n, n)])
    h = layers.Add()([h, layers.Dense(16)(layers.Dense(32, activation="gelu")(layers.LayerNormalization()(h)))])
    return keras.Model(i, layers.Dense(10, activation="softmax")(layers.GlobalAveragePooling1D()(h)))


def _truth(build: Build, weights: list[Array], rows: Array, softmax: bool) -> truth.Truth:
    keras.backend.set_floatx("float64")
    try:
        model = build()
        model.set_weights([w.astype("float64") if w.dtype.kind == "f" else w for w in weights])

        def pair(x: Array) -> tuple[Array, Array]:
            t = tf.constant(x[None], tf.float64)
            with tf.GradientTape(persistent=True) as tape:
                tape.watch(t)
                z = model(t, training=False)
                z = (tf.math.log(z) if softmax else z)[0]
                each = tf.unstack(z)
            return np.stack([tape.gradient(one, t).numpy().ravel() for one in each]), z.numpy()

        found = truth.of_jacobians(pair(x) for x in rows)
    finally:
        keras.backend.set_floatx("float32")
    # Of a softmax the logits are known up to a constant: their own Jacobian is not.
    return truth.Truth(found.lam, np.full_like(found.norm, np.nan)) if softmax else found


def _made(
    path: Path,
    build: Build,
    rows: Array,
    labels: Array,
    *,
    softmax: bool = True,
    by_keras: bool = True,
    opset: int = 15,
    steps: int = 12,
    n: int = 12,
    lost: Mapping[str, str] = MappingProxyType({}),
) -> Made:
    keras.utils.set_random_seed(0)
    model = build()
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.momentum = 0.5  # so that a few steps tell the statistics of the data
    if steps:
        model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=not softmax))
        model.fit(rows, labels, batch_size=32, steps_per_epoch=min(steps, len(rows) // 32), epochs=1, verbose=0)
        model.compiled = False
    if by_keras:
        model.export(str(path), format="onnx", verbose=False)
    else:
        signature = [tf.TensorSpec((None, *model.inputs[0].shape[1:]), tf.float32, name="x")]
        called = tf.function(lambda x: model(x, training=False), input_signature=signature)
        tf2onnx.convert.from_function(called, input_signature=signature, opset=opset, output_path=str(path))
    known = _truth(build, model.get_weights(), rows[:n], softmax)
    return Made({"inputs": rows[:n]}, labels[:n], known, options=_lost(path, lost))


def _lost(path: Path, values: Mapping[str, str]) -> tuple[str, ...]:
    """Options that hold what the exporter made inputs of, though the model has them as constants; by a part of the name."""
    inputs = [i.name for i in onnx.load(path).graph.input]
    feeds = [("--feed", f"{name}={value}") for name in inputs for part, value in values.items() if part in name]
    return ("--input", inputs[0], *(o for feed in feeds for o in feed)) if feeds else ()


def _add(name: str, build: Build, rows: Array, labels: Array = Y, *, family: str | None = None, **how: Any) -> None:
    by = "Keras" if how.get("by_keras", True) else "tf2onnx"
    RECIPES.add(f"k_{name}", lambda path: _made(path, build, rows, labels, **how), family=family, by=by)


_PICTURES, _PICTURE_LABELS = digits(160, 32, 3, last=True)


def _application(name: str, **how: Any) -> Build:
    return lambda: getattr(keras.applications, name)(weights=None, input_shape=(32, 32, 3), classes=10, **how)


_add("cnn_softmax", _cnn(), X)
_add("cnn_softmax_tf2onnx", _cnn(), X, by_keras=False)
_add("cnn_logits_tf2onnx_op11", _cnn(False), X, softmax=False, by_keras=False, opset=11)
_add("cnn_rescaling", _cnn(before=lambda: layers.Rescaling(1 / 127.5, offset=-1)), GREY)
_add(
    "cnn_normalization_tf2onnx",
    _cnn(before=lambda: layers.Normalization(mean=[100.0], variance=[3600.0])),
    GREY,
    by_keras=False,
    lost={"Sub/y": "100"},
)
for _kind in ("LSTM", "GRU"):
    _add(f"{_kind.lower()}_tf2onnx", _recurrent(_kind), STEPS, by_keras=False, family="recurrent")
_add("lstm", _recurrent("LSTM"), STEPS, family="recurrent")
_add("mha_tf2onnx", _attention, STEPS, by_keras=False, family="transformer")
_add("mha", _attention, STEPS, family="transformer")
_add("mobilenetv2_tf2onnx", _application("MobileNetV2", alpha=0.35), _PICTURES, _PICTURE_LABELS, by_keras=False, steps=5, n=6)
_add(
    "efficientnetv2b0",
    _application("EfficientNetV2B0", include_preprocessing=True),
    levels(_PICTURES).astype(np.float32),
    _PICTURE_LABELS,
    steps=3,
    n=4,
)
