"""Training: plain, under PGD (Madry et al. 2018) and by TRADES (Zhang et al. 2019), with L∞ attacks."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, kl_div, log_softmax, softmax

from .cells import Cell
from .data_sets import EPSILON, Splits
from .networks import build

EPOCHS = {"digits": 40, "fashion": 6, "pneumonia": 10}
BATCH = {"digits": 64, "fashion": 128, "pneumonia": 128}
ATTACK_STEPS = 4
TRADES_BETA = 6.0
LEARNING_RATE, WEIGHT_DECAY = 3e-3, 0.05


def ascend(loss, x: Tensor, *, eps: float, rng: torch.Generator) -> Tensor:
    """Images within L∞ distance ``eps`` of ``x`` and in [0, 1] that raise ``loss(images)``, by projected gradient ascent."""
    step = 2.5 * eps / ATTACK_STEPS
    near = (x + eps * (2 * torch.rand(x.shape, generator=rng) - 1)).clamp(0, 1)
    for _ in range(ATTACK_STEPS):
        near.requires_grad_()
        (slope,) = torch.autograd.grad(loss(near), near)
        near = (near.detach() + step * slope.sign()).clamp(x - eps, x + eps).clamp(0, 1)
    return near


def loss_of(model: nn.Module, x: Tensor, labels: Tensor, cell: Cell, *, eps: float, rng: torch.Generator) -> Tensor:
    """The loss of one batch, a scalar; the attack sees the net as it is deployed (BatchNorm by its running statistics)."""
    if cell.training == "standard":
        return cross_entropy(model(x), labels)
    model.eval()
    if cell.training == "pgd":
        near = ascend(lambda images: cross_entropy(model(images), labels), x, eps=eps, rng=rng)
        model.train()
        return cross_entropy(model(near), labels)
    clean = softmax(model(x), dim=1).detach()
    near = ascend(lambda images: kl_div(log_softmax(model(images), dim=1), clean, reduction="sum"), x, eps=eps, rng=rng)
    model.train()
    z = model(torch.cat([x, near]))
    kept = kl_div(log_softmax(z[len(x) :], dim=1), softmax(z[: len(x)], dim=1), reduction="batchmean")
    return cross_entropy(z[: len(x)], labels) + TRADES_BETA * kept


def order(labels: Tensor, rng: torch.Generator) -> Tensor:
    """Indices of one epoch; classes that differ much in size are drawn equally often."""
    counts = torch.bincount(labels)
    if counts.max() < 2 * counts.min():
        return torch.randperm(len(labels), generator=rng)
    return torch.multinomial((1.0 / counts)[labels], len(labels), replacement=True, generator=rng)


def train(cell: Cell, data: Splits) -> nn.Module:
    """The trained net in eval mode."""
    torch.manual_seed(cell.seed)
    rng = torch.Generator().manual_seed(cell.seed)
    model = build(cell.family, cell.size, side=data.side, classes=data.classes)
    images, labels = torch.from_numpy(data.train_images), torch.from_numpy(data.train_labels)
    batch, epochs = BATCH[cell.data], EPOCHS[cell.data]
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    per_epoch = len(images) // batch
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=epochs * per_epoch)
    for _ in range(epochs):
        for rows in order(labels, rng)[: per_epoch * batch].split(batch):
            model.train()
            optimizer.zero_grad()
            loss_of(model, images[rows], labels[rows], cell, eps=cell.strength * EPSILON[cell.data], rng=rng).backward()
            optimizer.step()
            schedule.step()
    return model.eval()


@torch.no_grad()
def logits(model: nn.Module, images: np.ndarray) -> np.ndarray:
    """Logits (N, K) of images (N, 1, side, side)."""
    return torch.cat([model(part) for part in torch.from_numpy(images).split(256)]).numpy()
