"""Test images under corruptions of three severities, and images of another source: seeded, by numpy and scipy alone.

In the manner of Hendrycks and Dietterich (2019), with severities of our own, fitted to grey images of 8x8 and 28x28. Every image is
(N, 1, side, side) in [0, 1], and stays so.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from tests.support.places import MODELS

from .data_sets import SHARED, Images, Labels, Splits, load, scaled

SEVERITIES = (1, 2, 3)
Corruption = Callable[[Images, int, np.random.Generator], NDArray[np.float64]]
Planes = NDArray[np.float64]


def of_side(side: int, small: tuple[float, float, float], large: tuple[float, float, float], severity: int) -> float:
    """The size of a corruption of ``severity`` 1 to 3: the first three are for images of 8x8, the others for 28x28."""
    return (small if side < 16 else large)[severity - 1]


def gaussian_noise(X: Images, severity: int, rng: np.random.Generator) -> Planes:
    """Normal noise, its deviation in units of the range."""
    return X + (0.1, 0.2, 0.35)[severity - 1] * rng.standard_normal(X.shape)


def impulse_noise(X: Images, severity: int, rng: np.random.Generator) -> Planes:
    """A share of the pixels is set to black or white."""
    hit, white = rng.random(X.shape) < (0.05, 0.12, 0.25)[severity - 1], rng.random(X.shape) < 0.5
    return np.where(hit, white.astype(np.float64), X)


def blur(X: Images, severity: int, rng: np.random.Generator) -> Planes:
    """Gaussian blur, its deviation in pixels."""
    sigma = of_side(X.shape[-1], (0.6, 0.9, 1.3), (0.8, 1.3, 2.0), severity)
    return np.asarray(ndimage.gaussian_filter(X.astype(np.float64), (0, 0, sigma, sigma), mode="nearest"))


def contrast(X: Images, severity: int, rng: np.random.Generator) -> Planes:
    """Distances from each image's mean are shortened to a share of themselves."""
    mean = X.mean(axis=(1, 2, 3), keepdims=True)
    return mean + (0.6, 0.35, 0.2)[severity - 1] * (X.astype(np.float64) - mean)


def brightness(X: Images, severity: int, rng: np.random.Generator) -> Planes:
    """A constant is added; what passes 1 is cut off."""
    return X + np.float64((0.15, 0.3, 0.5)[severity - 1])


def occlusion(X: Images, severity: int, rng: np.random.Generator) -> Planes:
    """A square of middle grey lies somewhere on each image."""
    side = X.shape[-1]
    edge = int(of_side(side, (2, 3, 4), (7, 10, 14), severity))
    corners = (rng.random((len(X), 2)) * (side - edge + 1)).astype(int)
    out = X.astype(np.float64)
    for image, (row, column) in zip(out, corners, strict=True):
        image[:, row : row + edge, column : column + edge] = 0.5
    return out


def pixelate(X: Images, severity: int, rng: np.random.Generator) -> Planes:
    """Averaged down to fewer pixels, and back."""
    side = X.shape[-1]
    few = int(of_side(side, (6, 4, 3), (14, 9, 6), severity))
    return resized(resized(X, few), side)


def translation(X: Images, severity: int, rng: np.random.Generator) -> Planes:
    """Moved by a number of pixels in a random direction; the border is repeated."""
    far = of_side(X.shape[-1], (0.5, 1.0, 1.5), (1.5, 3.0, 4.5), severity)
    angles = 2 * np.pi * rng.random(len(X))
    steps = far * np.stack([np.zeros(len(X)), np.sin(angles), np.cos(angles)], axis=1)
    return np.stack([ndimage.shift(x, step, order=1, mode="nearest") for x, step in zip(X, steps, strict=True)])


def rotation(X: Images, severity: int, rng: np.random.Generator) -> Planes:
    """Turned about the middle, to either side; the border is repeated."""
    angles = (10, 20, 35)[severity - 1] * np.where(rng.random(len(X)) < 0.5, -1.0, 1.0)
    turned = [ndimage.rotate(x, a, axes=(1, 2), reshape=False, order=1, mode="nearest") for x, a in zip(X, angles, strict=True)]
    return np.stack(turned)


CORRUPTIONS: dict[str, Corruption] = {
    f.__name__: f
    for f in (gaussian_noise, impulse_noise, blur, contrast, brightness, occlusion, pixelate, translation, rotation)
}  # fmt: skip


def overlaps(source: int, target: int) -> Planes:
    """Share of each of ``source`` pixels in each of ``target`` equally long ones, (target, source); its rows add up to 1."""
    cuts, marks = np.arange(source + 1) / source, np.arange(target + 1) / target
    low, high = np.maximum(marks[:-1, None], cuts[:-1]), np.minimum(marks[1:, None], cuts[1:])
    return np.maximum(high - low, 0.0) * target


def resized(X: NDArray[np.floating], rows: int, columns: int | None = None) -> Planes:
    """(N, 1, h, w) by area averages to (N, 1, rows, columns), square where only one is given."""
    return np.asarray(overlaps(X.shape[2], rows) @ X @ overlaps(X.shape[3], columns or rows).T)


def corrupted(X: Images, name: str, severity: int, *, seed: int = 0) -> Images:
    """Images X under one corruption; all severities draw the same random numbers."""
    rng = np.random.default_rng([seed, list(CORRUPTIONS).index(name)])
    return np.clip(CORRUPTIONS[name](X, severity, rng), 0.0, 1.0).astype(np.float32)


@cache
def corruptions_of(data: str) -> dict[str, list[Images]]:
    """The test images of a data set under each corruption, of severities 1 to 3."""
    X = load(data).test_images
    return {name: [corrupted(X, name, severity) for severity in SEVERITIES] for name in CORRUPTIONS}


def cut_to_ink(X: Images, *, above: float = 0.2) -> Planes:
    """Each image (1, h, w) cut to the rows and columns that hold ink, averaged to 8x8: scikit-learn's digits fill their frame as well."""
    out = []
    for x in X:
        rows, columns = (np.flatnonzero((x[0] > above).any(axis=axis)) for axis in (1, 0))
        part = x[None, :, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        high, wide = part.shape[2:]
        margin = max(0, (high - wide) // 2)  # a narrow digit stays narrow
        out.append(resized(np.pad(part, ((0, 0), (0, 0), (0, 0), (margin, margin))), 8))
    return np.concatenate(out)


def mnist() -> dict[str, tuple[Images, Labels]]:
    """Digits of MNIST at 8x8, by area averages of the frame of 28x28 and of the part that holds ink; empty where they are not at hand."""
    path = MODELS / "data_mnist_id_28x28.npz"  # pixel / 255, by the folder's manifest
    if not path.is_file():
        return {}
    with np.load(path, allow_pickle=False) as arrays:
        X, labels = arrays["inputs"].reshape(-1, 1, 28, 28), arrays["labels"].astype(np.int64)
    return {
        "mnist_whole_frame": (resized(X, 8).astype(np.float32), labels),
        "mnist_cut_to_ink": (cut_to_ink(X).astype(np.float32), labels),
    }


def pneumonia_validation() -> dict[str, tuple[Images, Labels]]:
    """The validation part of PneumoniaMNIST, of which no image is trained on; it was drawn from the source's training part, the test part was not."""
    path = Path(os.environ.get("PNEUMONIA_MNIST", SHARED / "data" / "pneumonia_mnist.npz"))
    with np.load(path, allow_pickle=False) as arrays:
        return {"validation_part": (scaled(arrays["val_images"]), arrays["val_labels"].reshape(-1).astype(np.int64))}


def mirrored(data: Splits) -> dict[str, tuple[Images, Labels]]:
    """Left and right exchanged: shoes point the other way, hearts lie on the other side, and the label stays."""
    return {"mirrored": (np.ascontiguousarray(data.test_images[..., ::-1]), data.test_labels)}


@cache
def shifts_of(data: str) -> dict[str, tuple[Images, Labels]]:
    """Images (N, 1, side, side) of another distribution with their labels (N,), by name; digits have no mirror image."""
    if data == "digits":
        return mnist()
    found = mirrored(load(data))
    return found | pneumonia_validation() if data == "pneumonia" else found


def accuracies(predict: Callable[[Images], Labels], data: str) -> dict[str, dict[str, list[float]]]:
    """How a file does under corruption and on images of another source.

    Args:
        predict: Classes (N,) of images (N, 1, side, side).
        data: Name of the data set.

    Returns:
        ``corruptions``: accuracy on the test images by corruption, at severities 1 to 3. ``shift``: accuracy by source.
        ``balanced``: the mean over the classes of the share that is right, of each source and of the test part.
    """
    test = load(data)
    corruptions = {name: [share(predict(X) == test.test_labels) for X in kept] for name, kept in corruptions_of(data).items()}
    right = {name: (predict(X) == labels, labels) for name, (X, labels) in shifts_of(data).items()}
    shift = {name: [share(hits)] for name, (hits, _) in right.items()}
    right["test_part"] = (predict(test.test_images) == test.test_labels, test.test_labels)
    return {"corruptions": corruptions, "shift": shift, "balanced": {name: [balanced(*pair)] for name, pair in right.items()}}


def share(right: NDArray[np.bool_]) -> float:
    """Share of True."""
    return round(float(right.mean()), 4)


def balanced(right: NDArray[np.bool_], labels: Labels) -> float:
    """Mean over the classes of the share of True."""
    return round(float(np.mean([right[labels == k].mean() for k in np.unique(labels)])), 4)
