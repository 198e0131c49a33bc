"""Five small classifiers of 8x8 grey images: one of each family the auditor tells apart.

Every forward pass takes (N, 1, 8, 8) in [0, 1] and returns logits (N, 10); no size of the batch enters a constant.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

CLASSES = 10


def conv_bn_relu(inputs: int, outputs: int, *, stride: int = 1) -> list[nn.Module]:
    """3x3 convolution, BatchNorm, ReLU: the exporter folds the second into the first."""
    return [nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]


def global_average(x: Tensor) -> Tensor:
    """Mean over the image plane, (N, C, h, w) to (N, C)."""
    return x.mean(dim=(2, 3))


class MLP(nn.Sequential):
    """Two hidden layers of ReLU."""

    def __init__(self, *, widths: tuple[int, int] = (128, 64)) -> None:
        first, second = widths
        super().__init__(
            nn.Flatten(),
            nn.Linear(64, first),
            nn.ReLU(),
            nn.Linear(first, second),
            nn.ReLU(),
            nn.Linear(second, CLASSES),
        )


class VGG(nn.Sequential):
    """Plain stack of 3x3 convolutions with max pooling and a two-layer head (Simonyan and Zisserman 2015)."""

    def __init__(self, *, widths: tuple[int, ...] = (16, 32, 32), hidden: int = 64) -> None:
        layers: list[nn.Module] = []
        for inputs, outputs in zip((1, *widths), widths, strict=False):
            layers += conv_bn_relu(inputs, outputs) + conv_bn_relu(outputs, outputs) + [nn.MaxPool2d(2)]
        super().__init__(*layers, nn.Flatten(), nn.Linear(widths[-1], hidden), nn.ReLU(), nn.Linear(hidden, CLASSES))


class ResidualBlock(nn.Module):
    """``relu(skip(x) + g(x))``; the skip is a 1x1 convolution where the shape changes (He et al. 2016)."""

    def __init__(self, inputs: int, outputs: int, *, stride: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            *conv_bn_relu(inputs, outputs, stride=stride),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.skip: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.skip = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.skip(x) + self.branch(x))


class ResNet(nn.Module):
    """Three residual blocks between a convolution and a linear head."""

    def __init__(self, *, widths: tuple[int, ...] = (16, 32, 32)) -> None:
        super().__init__()
        self.stem = nn.Sequential(*conv_bn_relu(1, widths[0]))
        self.blocks = nn.Sequential(
            *(
                ResidualBlock(inputs, outputs, stride=1 if i == 0 else 2)
                for i, (inputs, outputs) in enumerate(zip((widths[0], *widths), widths, strict=False))
            )
        )
        self.head = nn.Linear(widths[-1], CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(global_average(self.blocks(self.stem(x))))


class DenseLayer(nn.Module):
    """``[x, conv(relu(bn(x)))]``: the channels grow by ``growth`` (Huang et al. 2017)."""

    def __init__(self, inputs: int, growth: int) -> None:
        super().__init__()
        self.grow = nn.Sequential(nn.BatchNorm2d(inputs), nn.ReLU(), nn.Conv2d(inputs, growth, 3, 1, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.grow(x)], dim=1)


class DenseNet(nn.Module):
    """Two dense blocks with a 1x1 transition and average pooling between them."""

    def __init__(self, *, stem: int = 16, growth: int = 12, depth: int = 4) -> None:
        super().__init__()
        first = stem + depth * growth
        half = first // 2
        last = half + depth * growth
        self.features = nn.Sequential(
            nn.Conv2d(1, stem, 3, 1, 1, bias=False),
            *(DenseLayer(stem + i * growth, growth) for i in range(depth)),
            nn.BatchNorm2d(first),
            nn.ReLU(),
            nn.Conv2d(first, half, 1, bias=False),
            nn.AvgPool2d(2),
            *(DenseLayer(half + i * growth, growth) for i in range(depth)),
            nn.BatchNorm2d(last),
            nn.ReLU(),
        )
        self.head = nn.Linear(last, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(global_average(self.features(x)))


class Attention(nn.Module):
    """Multi-head softmax attention over T tokens, written out so that the file shows MatMul, Softmax, MatMul."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.scale = (dim // heads) ** -0.5
        self.query = nn.Linear(dim, dim)
        self.key = nn.Linear(dim, dim)
        self.value = nn.Linear(dim, dim)
        self.out = nn.Linear(dim, dim)

    def split(self, x: Tensor) -> Tensor:
        """(N, T, D) to (N, heads, T, D / heads)."""
        return x.reshape(-1, x.shape[1], self.heads, x.shape[2] // self.heads).transpose(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.split(self.query(x)), self.split(self.key(x)), self.split(self.value(x))
        weights = torch.softmax(q @ k.transpose(-2, -1) * self.scale, dim=-1)  # (N, heads, T, T)
        return self.out((weights @ v).transpose(1, 2).reshape(-1, x.shape[1], x.shape[2]))


class TransformerBlock(nn.Module):
    """Pre-norm block: attention, then a GELU layer of twice the width, each on a residual branch."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.attend = nn.Sequential(nn.LayerNorm(dim), Attention(dim, heads))
        self.feed = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attend(x)
        return x + self.feed(x)


class ViT(nn.Module):
    """Vision transformer on 16 patches of 2x2, learned positions, mean of the tokens (Dosovitskiy et al. 2021)."""

    def __init__(self, *, dim: int = 48, heads: int = 4, depth: int = 3) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, dim, 2, 2)
        self.positions = nn.Parameter(0.02 * torch.randn(1, 16, dim))
        self.blocks = nn.Sequential(*(TransformerBlock(dim, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2) + self.positions  # (N, 16, D)
        return self.head(self.norm(self.blocks(tokens)).mean(dim=1))
