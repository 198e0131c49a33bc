"""The stage ``train``: a net of the grid, its .onnx file and its weights; of a twin, its int8 file."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from sample_models import files

from .cells import Cell
from .data_sets import load
from .networks import build, parameters
from .stages import Folder, Record
from .training import logits, train

CALIBRATION = 512  # training images that an int8 file's ranges are read from


def make(folder: Folder, cell: Cell) -> Record:
    """Train (or quantise) and export; the record holds the accuracy of the file itself on the test images."""
    data = load(cell.data)
    path = folder.onnx(cell.name)
    record: Record = {}
    if cell.parent is not None:
        files.to_int8(folder.onnx(cell.parent), path, calibration=data.train_images[:CALIBRATION])
    else:
        model = train(cell, data)
        files.export(model, path, example=torch.from_numpy(data.test_images[:2]))
        np.savez_compressed(folder.weights(cell.name), **{k: v.numpy() for k, v in model.state_dict().items()})
        difference = np.abs(logits(model, data.test_images) - files.run(path, data.test_images)).max()
        record |= {"parameters": parameters(model), "logit_difference": float(difference)}
    scores = files.run(path, data.test_images)
    accuracy = float((scores.argmax(axis=1) == data.test_labels).mean())
    return record | {"accuracy": accuracy, "said": f"{accuracy:.1%}"}


def restore(folder: Folder, cell: Cell) -> nn.Module:
    """The trained net in eval mode, from its arrays."""
    data = load(cell.data)
    model = build(cell.family, cell.size, side=data.side, classes=data.classes)
    with np.load(folder.weights(cell.name), allow_pickle=False) as arrays:
        model.load_state_dict({key: torch.from_numpy(arrays[key]) for key in arrays.files})
    return model.eval()
