"""Small networks of the families that torchvision ships, written in torch with its building blocks."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional


class Vgg(nn.Sequential):
    def __init__(self):
        super().__init__(
            nn.Conv2d(3, 8, 3, 1, 1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 8, 3, 1, 1), nn.ReLU(),
            nn.MaxPool2d(2), nn.AdaptiveAvgPool2d((2, 2)), nn.Flatten(),
            nn.Linear(32, 16), nn.ReLU(), nn.Dropout(), nn.Linear(16, 5),
        )  # fmt: skip


class Bottleneck(nn.Module):
    def __init__(self, c, d, stride):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(c, d // 2, 1, bias=False), nn.BatchNorm2d(d // 2), nn.ReLU(),
            nn.Conv2d(d // 2, d // 2, 3, stride, 1, groups=2, bias=False), nn.BatchNorm2d(d // 2), nn.ReLU(),
            nn.Conv2d(d // 2, d, 1, bias=False), nn.BatchNorm2d(d),
        )  # fmt: skip
        self.skip = nn.Sequential(nn.Conv2d(c, d, 1, stride, bias=False), nn.BatchNorm2d(d))

    def forward(self, x):
        return torch.relu(self.body(x) + self.skip(x))


class ResNet(nn.Sequential):
    def __init__(self):
        super().__init__(
            nn.Conv2d(3, 8, 7, 2, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(3, 2, 1),
            Bottleneck(8, 16, 1), Bottleneck(16, 16, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5),
        )  # fmt: skip


class DenseLayer(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.body = nn.Sequential(
            nn.BatchNorm2d(c), nn.ReLU(), nn.Conv2d(c, 8, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 3, 1, 1)
        )

    def forward(self, x):
        return torch.cat([x, self.body(x)], 1)


class DenseNet(nn.Sequential):
    def __init__(self):
        super().__init__(
            nn.Conv2d(3, 8, 3, 1, 1), DenseLayer(8), DenseLayer(12), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 8, 1),
            nn.AvgPool2d(2, 2), DenseLayer(8), nn.BatchNorm2d(12), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 5),
        )  # fmt: skip


class SqueezeExcite(nn.Module):
    def __init__(self, c, inner, gate):
        super().__init__()
        self.pool, self.a, self.b = nn.AdaptiveAvgPool2d(1), nn.Conv2d(c, 4, 1), nn.Conv2d(4, c, 1)
        self.inner, self.gate = inner, gate

    def forward(self, x):
        return x * self.gate(self.b(self.inner(self.a(self.pool(x)))))


class Inverted(nn.Module):
    def __init__(self, c, d, stride, act, gate):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(c, 4 * c, 1, bias=False), nn.BatchNorm2d(4 * c), act(),
            nn.Conv2d(4 * c, 4 * c, 5 if stride == 2 else 3, stride, 2 if stride == 2 else 1, groups=4 * c, bias=False),
            nn.BatchNorm2d(4 * c), act(), SqueezeExcite(4 * c, nn.ReLU() if gate is nn.Hardsigmoid else nn.SiLU(), gate()),
            nn.Conv2d(4 * c, d, 1, bias=False), nn.BatchNorm2d(d),
        )  # fmt: skip
        self.residual = stride == 1 and c == d

    def forward(self, x):
        return x + self.body(x) if self.residual else self.body(x)


def mobilenet_v2():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU6(), Inverted(8, 8, 1, nn.ReLU6, nn.Sigmoid),
        Inverted(8, 12, 2, nn.ReLU6, nn.Sigmoid), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 5),
    )  # fmt: skip


def mobilenet_v3():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.Hardswish(), Inverted(8, 8, 1, nn.ReLU, nn.Hardsigmoid),
        Inverted(8, 12, 2, nn.Hardswish, nn.Hardsigmoid), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(12, 16), nn.Hardswish(), nn.Linear(16, 5),
    )  # fmt: skip


def efficientnet():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.SiLU(), Inverted(8, 8, 1, nn.SiLU, nn.Sigmoid),
        Inverted(8, 12, 2, nn.SiLU, nn.Sigmoid), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 5),
    )  # fmt: skip


class ChannelNorm(nn.LayerNorm):
    def forward(self, x):
        x = x.permute(0, 2, 3, 1)
        return functional.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps).permute(0, 3, 1, 2)


class NextBlock(nn.Module):
    def __init__(self, d):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(d, d, 7, padding=3, groups=d), nn.LayerNorm(d)
        self.mlp = nn.Sequential(nn.Linear(d, 4 * d), nn.GELU(), nn.Linear(4 * d, d))
        self.scale = nn.Parameter(torch.full((d, 1, 1), 0.5))

    def forward(self, x):
        t = self.mlp(self.norm(self.conv(x).permute(0, 2, 3, 1)))
        return x + self.scale * t.permute(0, 3, 1, 2)


def convnext():
    return nn.Sequential(
        nn.Conv2d(3, 8, 4, 4), ChannelNorm(8), NextBlock(8), ChannelNorm(8), nn.Conv2d(8, 12, 2, 2), NextBlock(12),
        nn.AdaptiveAvgPool2d(1), ChannelNorm(12), nn.Flatten(1), nn.Linear(12, 5),
    )  # fmt: skip


class EncoderBlock(nn.Module):
    """torchvision's ViT block, with nn.MultiheadAttention."""

    def __init__(self, d, heads):
        super().__init__()
        self.n1, self.n2 = nn.LayerNorm(d), nn.LayerNorm(d)
        self.attention = nn.MultiheadAttention(d, heads, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(d, 2 * d), nn.GELU(), nn.Dropout(), nn.Linear(2 * d, d))

    def forward(self, x):
        t = self.n1(x)
        x = x + self.attention(t, t, t, need_weights=False)[0]
        return x + self.mlp(self.n2(x))


class Vit(nn.Module):
    def __init__(self):
        super().__init__()
        self.patch = nn.Conv2d(3, 12, 8, 8)
        self.cls = nn.Parameter(torch.randn(1, 1, 12))
        self.pos = nn.Parameter(torch.randn(1, 17, 12))
        self.blocks = nn.Sequential(EncoderBlock(12, 3), EncoderBlock(12, 3))
        self.norm, self.head = nn.LayerNorm(12), nn.Linear(12, 5)

    def forward(self, x):
        n = x.shape[0]
        t = self.patch(x).reshape(n, 12, 16).permute(0, 2, 1)
        t = torch.cat([self.cls.expand(n, -1, -1), t], dim=1) + self.pos
        return self.head(self.norm(self.blocks(t))[:, 0])


class SwinBlock(nn.Module):
    """Shifted windows of 4 × 4 with a relative position bias and the mask of torchvision."""

    def __init__(self, d, heads, shift):
        super().__init__()
        self.heads, self.shift, self.w = heads, shift, 4
        self.n1, self.n2 = nn.LayerNorm(d), nn.LayerNorm(d)
        self.qkv, self.out = nn.Linear(d, 3 * d), nn.Linear(d, d)
        self.table = nn.Parameter(torch.randn(49, heads))
        grid = torch.stack(torch.meshgrid(torch.arange(4), torch.arange(4), indexing="ij")).flatten(1)
        relative = (grid[:, :, None] - grid[:, None]).permute(1, 2, 0) + 3
        self.register_buffer("index", (relative[..., 0] * 7 + relative[..., 1]).flatten())
        self.mlp = nn.Sequential(nn.Linear(d, 2 * d), nn.GELU(), nn.Linear(2 * d, d))

    def windows(self, x):
        n, h, width, c = x.shape
        w, heads = self.w, self.heads
        if self.shift:
            x = torch.roll(x, (-self.shift, -self.shift), (1, 2))
        count = (h // w) * (width // w)
        x = x.view(n, h // w, w, width // w, w, c).permute(0, 1, 3, 2, 4, 5).reshape(n * count, w * w, c)
        qkv = self.qkv(x).reshape(n * count, w * w, 3, heads, c // heads).permute(2, 0, 3, 1, 4)
        q, k, v = qkv[0] * (c // heads) ** -0.5, qkv[1], qkv[2]
        a = q.matmul(k.transpose(-2, -1)) + self.table[self.index].view(16, 16, heads).permute(2, 0, 1).unsqueeze(0)
        if self.shift:
            mask = x.new_zeros((h, width))
            cuts = ((0, -w), (-w, -self.shift), (-self.shift, None))
            for i, rows in enumerate(cuts):
                for j, columns in enumerate(cuts):
                    mask[rows[0] : rows[1], columns[0] : columns[1]] = 3 * i + j
            mask = mask.view(h // w, w, width // w, w).permute(0, 2, 1, 3).reshape(count, w * w)
            mask = mask.unsqueeze(1) - mask.unsqueeze(2)
            mask = mask.masked_fill(mask != 0, -100.0).masked_fill(mask == 0, 0.0)
            a = a.view(n, count, heads, 16, 16) + mask.unsqueeze(1).unsqueeze(0)
            a = a.view(-1, heads, 16, 16)
        x = torch.softmax(a, -1).matmul(v).transpose(1, 2).reshape(n * count, w * w, c)
        x = self.out(x).view(n, h // w, width // w, w, w, c).permute(0, 1, 3, 2, 4, 5).reshape(n, h, width, c)
        return torch.roll(x, (self.shift, self.shift), (1, 2)) if self.shift else x

    def forward(self, x):
        x = x + self.windows(self.n1(x))
        return x + self.mlp(self.n2(x))


class Merge(nn.Module):
    def __init__(self, d):
        super().__init__()
        self.norm, self.reduce = nn.LayerNorm(4 * d), nn.Linear(4 * d, 2 * d, bias=False)

    def forward(self, x):
        x = torch.cat([x[..., 0::2, 0::2, :], x[..., 1::2, 0::2, :], x[..., 0::2, 1::2, :], x[..., 1::2, 1::2, :]], -1)
        return self.reduce(self.norm(x))


class Swin(nn.Module):
    def __init__(self):
        super().__init__()
        self.patch = nn.Conv2d(3, 8, 4, 4)
        self.body = nn.Sequential(SwinBlock(8, 2, 0), SwinBlock(8, 2, 2), Merge(8), SwinBlock(16, 2, 0), nn.LayerNorm(16))
        self.head = nn.Linear(16, 5)

    def forward(self, x):
        t = self.body(self.patch(x).permute(0, 2, 3, 1))
        return self.head(torch.flatten(functional.adaptive_avg_pool2d(t.permute(0, 3, 1, 2), 1), 1))


class Inception(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.a = nn.Sequential(nn.Conv2d(c, 4, 1), nn.ReLU())
        self.b = nn.Sequential(nn.Conv2d(c, 4, 1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1), nn.ReLU())
        self.c = nn.Sequential(nn.MaxPool2d(3, 1, 1, ceil_mode=True), nn.Conv2d(c, 4, 1), nn.ReLU())

    def forward(self, x):
        return torch.cat([self.a(x), self.b(x), self.c(x)], 1)


class GoogLeNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 7, 2, 3), nn.ReLU(), nn.MaxPool2d(3, 2, ceil_mode=True), Inception(8),
            nn.MaxPool2d(3, 2, ceil_mode=True), Inception(12), nn.AvgPool2d(3, 2, 1, ceil_mode=True), nn.AdaptiveAvgPool2d(1),
        )  # fmt: skip
        self.head = nn.Linear(12, 5)

    def forward(self, x):
        x = torch.stack([x[:, i] * (0.2 + 0.1 * i) + 0.1 for i in range(3)], 1)  # transform_input
        return self.head(torch.flatten(self.body(x), 1))


NETS = {
    "vgg": Vgg,
    "resnet": ResNet,
    "densenet": DenseNet,
    "mobilenet_v2": mobilenet_v2,
    "mobilenet_v3": mobilenet_v3,
    "efficientnet": efficientnet,
    "convnext": convnext,
    "vit": Vit,
    "swin": Swin,
    "googlenet": GoogLeNet,
}


def make(name):
    """A network with random weights and batch statistics, in evaluation mode."""
    torch.manual_seed(0)
    net = NETS[name]()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.normal_(module.running_mean, 0.0, 0.3)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0.0, 0.3)
    return net.eval()


def export(net, path, *, dynamo, batch):
    """Write the network as ONNX by one of PyTorch's exporters, the batch free or fixed."""
    x = torch.randn(batch or 2, 3, 32, 32)
    if dynamo:
        shapes = None if batch else ({0: torch.export.Dim("N")},)
        torch.onnx.export(
            net, (x,), str(path), input_names=["x"], output_names=["z"], dynamic_shapes=shapes, dynamo=True, verbose=False
        )
    else:
        axes = None if batch else {"x": {0: "N"}, "z": {0: "N"}}
        torch.onnx.export(net, (x,), str(path), input_names=["x"], output_names=["z"], dynamic_axes=axes, dynamo=False)
