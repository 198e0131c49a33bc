"""Five families of small classifiers of grey images, of like cost; one of them in three sizes.

Every forward pass takes (N, 1, side, side) in [0, 1] and returns logits (N, classes). Images of 28x28 are halved by the first layer
of the convolutional nets, so that a grid of hundreds is trained in an hour. Blocks are those of the sample models.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sample_models.networks import DenseLayer, ResidualBlock, TransformerBlock, conv_bn_relu, global_average

SCALE = {"small": 0.5, "medium": 1.0, "large": 2.0}


def stem(outputs: int, side: int) -> list[nn.Module]:
    """The first layer, with stride 2 where the image is large."""
    return conv_bn_relu(1, outputs, stride=2 if side > 16 else 1)


class GlobalAverage(nn.Module):
    """Mean over the image plane, (N, C, h, w) to (N, C)."""

    def forward(self, x: Tensor) -> Tensor:
        return global_average(x)


def mlp(side: int, classes: int, scale: float) -> nn.Module:
    """Two hidden layers of ReLU."""
    width = int(96 * scale)
    return nn.Sequential(
        nn.Flatten(), nn.Linear(side * side, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, classes)
    )


def vgg(side: int, classes: int, scale: float) -> nn.Module:
    """Plain stack of 3x3 convolutions with max pooling and a two-layer head (Simonyan and Zisserman 2015)."""
    a, b = int(16 * scale), int(32 * scale)
    after = (side // 2 if side > 16 else side) // 2 // 2
    return nn.Sequential(
        *stem(a, side), *conv_bn_relu(a, a), nn.MaxPool2d(2), *conv_bn_relu(a, b), *conv_bn_relu(b, b), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(b * after * after, 2 * b), nn.ReLU(), nn.Linear(2 * b, classes),
    )  # fmt: skip


def resnet(side: int, classes: int, scale: float) -> nn.Module:
    """Three residual blocks between a convolution and a linear head."""
    a, b = int(16 * scale), int(32 * scale)
    blocks = [ResidualBlock(a, a, stride=1), ResidualBlock(a, b, stride=2), ResidualBlock(b, b, stride=1)]
    return nn.Sequential(*stem(a, side), *blocks, GlobalAverage(), nn.Linear(b, classes))


def densenet(side: int, classes: int, scale: float) -> nn.Module:
    """Two dense blocks with a 1x1 transition and average pooling between them."""
    first, growth, depth = int(16 * scale), int(8 * scale), 3
    grown = first + depth * growth
    half = grown // 2
    last = half + depth * growth
    return nn.Sequential(
        nn.Conv2d(1, first, 3, 2 if side > 16 else 1, 1, bias=False),
        *(DenseLayer(first + i * growth, growth) for i in range(depth)),
        nn.BatchNorm2d(grown), nn.ReLU(), nn.Conv2d(grown, half, 1, bias=False), nn.AvgPool2d(2),
        *(DenseLayer(half + i * growth, growth) for i in range(depth)),
        nn.BatchNorm2d(last), nn.ReLU(), GlobalAverage(), nn.Linear(last, classes),
    )  # fmt: skip


class ViT(nn.Module):
    """Vision transformer on square patches, learned positions, mean of the tokens (Dosovitskiy et al. 2021)."""

    def __init__(self, side: int, classes: int, scale: float, *, heads: int = 4, depth: int = 2) -> None:
        super().__init__()
        dim, patch = int(32 * scale), 4 if side > 16 else 2
        self.patches = nn.Conv2d(1, dim, patch, patch)
        self.positions = nn.Parameter(0.02 * torch.randn(1, (side // patch) ** 2, dim))
        self.blocks = nn.Sequential(*(TransformerBlock(dim, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, classes)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2) + self.positions  # (N, T, D)
        return self.head(self.norm(self.blocks(tokens)).mean(dim=1))


BUILDERS = {"mlp": mlp, "vgg": vgg, "resnet": resnet, "densenet": densenet, "vit": ViT}


def build(family: str, size: str, *, side: int, classes: int) -> nn.Module:
    """A net with fresh weights from torch's generator."""
    return BUILDERS[family](side, classes, SCALE[size])


def parameters(model: nn.Module) -> int:
    """How many numbers are trained."""
    return sum(p.numel() for p in model.parameters())
