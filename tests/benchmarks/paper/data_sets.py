"""The three data sets, scaled to [0, 1]: what is trained on, and what is audited and attacked.

Nothing is downloaded. Digits ship with scikit-learn; Fashion-MNIST (MIT) is the Debian package ``dataset-fashion-mnist``, or its
files in a folder named by ``FASHION_MNIST``; PneumoniaMNIST (MedMNIST v2, CC BY 4.0) is the file named by ``PNEUMONIA_MNIST``.
"""

from __future__ import annotations

import gzip
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

DATA_SETS = ("digits", "fashion", "pneumonia")
# L∞ radius of the training attacks, in units of the images' range: one grey level of digits is 1/16, of the others 1/255.
EPSILON = {"digits": 0.1, "fashion": 0.05, "pneumonia": 0.03}
SHARED = Path(__file__).resolve().parents[4].parent / "shared"
TEST = 500  # test images at most
FASHION_TRAIN = 10_000

Images = NDArray[np.float32]
Labels = NDArray[np.int64]


class DataError(Exception):
    """A data set is not where it was looked for."""


@dataclass(frozen=True)
class Splits:
    """Images (N, 1, side, side) in [0, 1] and labels (N,), in a fixed order; ``note`` says what is particular about them."""

    train_images: Images
    train_labels: Labels
    test_images: Images
    test_labels: Labels
    note: str

    @property
    def side(self) -> int:
        return self.train_images.shape[-1]

    @property
    def classes(self) -> int:
        return int(self.train_labels.max()) + 1


def digits() -> Splits:
    """scikit-learn's digits, 8x8, 16 grey levels; a stratified test part."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    data = load_digits()
    images = (data.images / 16).astype(np.float32)[:, None]
    train, test, train_labels, test_labels = train_test_split(
        images, data.target.astype(np.int64), test_size=TEST, stratify=data.target, random_state=0
    )
    return Splits(train, train_labels, test, test_labels, "8x8 images of scikit-learn, 10 classes")


def idx(path: Path) -> NDArray[np.uint8]:
    """Array of an IDX file of bytes, compressed by gzip (LeCun's format of MNIST)."""
    data = gzip.decompress(path.read_bytes())
    rank = data[3]
    shape = np.frombuffer(data, dtype=">i4", count=rank, offset=4)
    return np.frombuffer(data, dtype=np.uint8, offset=4 + 4 * rank).reshape(shape)


def fashion() -> Splits:
    """Fashion-MNIST, 28x28: the first images of each class of the training part, and the first of the test part."""
    folder = Path(os.environ.get("FASHION_MNIST", "/usr/share/datasets/fashion-mnist"))
    if not folder.is_dir():
        raise DataError(
            f"{folder}: no Fashion-MNIST there; install the package dataset-fashion-mnist, or name a folder by FASHION_MNIST"
        )
    images, labels = idx(folder / "train-images-idx3-ubyte.gz"), idx(folder / "train-labels-idx1-ubyte.gz")
    chosen = np.sort(np.concatenate([np.flatnonzero(labels == k)[: FASHION_TRAIN // 10] for k in range(10)]))
    return Splits(
        scaled(images[chosen]),
        labels[chosen].astype(np.int64),
        scaled(idx(folder / "t10k-images-idx3-ubyte.gz")[:TEST]),
        idx(folder / "t10k-labels-idx1-ubyte.gz")[:TEST].astype(np.int64),
        f"28x28, 10 classes; {FASHION_TRAIN:,} of the 60,000 training images, 1,000 of each class",
    )


def pneumonia() -> Splits:
    """PneumoniaMNIST, 28x28 chest X-rays, 2 classes; training images that are also in the other parts are left out."""
    path = Path(os.environ.get("PNEUMONIA_MNIST", SHARED / "data" / "pneumonia_mnist.npz"))
    if not path.is_file():
        raise DataError(f"{path}: no PneumoniaMNIST there; name its .npz file by PNEUMONIA_MNIST")
    with np.load(path, allow_pickle=False) as arrays:
        parts = {key: arrays[key] for key in arrays.files}
    elsewhere = {image.tobytes() for part in ("val", "test") for image in parts[f"{part}_images"]}
    kept = [i for i, image in enumerate(parts["train_images"]) if image.tobytes() not in elsewhere]
    labels = parts["train_labels"].reshape(-1)[kept].astype(np.int64)
    order = np.random.default_rng(0).permutation(len(parts["test_images"]))[:TEST]
    return Splits(
        scaled(parts["train_images"][kept]),
        labels,
        scaled(parts["test_images"][order]),
        parts["test_labels"].reshape(-1)[order].astype(np.int64),
        f"28x28, 2 classes; {int((labels == 0).sum())} normal and {int((labels == 1).sum())} pneumonia to train on (the file at hand lacks "
        f"most normal ones; both classes are drawn equally often), {len(parts['train_images']) - len(kept)} left out as they are in the other parts",
    )


def scaled(images: NDArray[np.uint8]) -> Images:
    """(N, h, w) bytes to (N, 1, h, w) in [0, 1]."""
    return (images.astype(np.float32) / 255)[:, None]


LOADERS = {"digits": digits, "fashion": fashion, "pneumonia": pneumonia}


@cache
def load(name: str) -> Splits:
    """A data set by its name."""
    return LOADERS[name]()
