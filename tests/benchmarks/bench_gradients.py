"""Cost of ten cotangents in forward passes, against ten backward passes of PyTorch, on five networks.

Run by hand: ``python tests/benchmarks/bench_gradients.py [--batch N] [NET ...]`` (batch 1 unless given).
Needs torch (weights are random) and onnxruntime.
Each figure is a ratio to a forward pass of the same batch in the same runtime, in one run, medians over repetitions of
processor time on one thread, which other work on the machine disturbs little.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import torch
from torch import nn

from onnxfim.gradients import derivative_graph

SEEDS = 10


class Residual(nn.Module):
    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False), nn.BatchNorm2d(c_out), nn.ReLU(),
            nn.Conv2d(c_out, c_out, 3, 1, 1, bias=False), nn.BatchNorm2d(c_out),
        )  # fmt: skip
        same = stride == 1 and c_in == c_out
        self.skip = nn.Identity() if same else nn.Sequential(nn.Conv2d(c_in, c_out, 1, stride, bias=False), nn.BatchNorm2d(c_out))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.body(x) + self.skip(x))


def resnet18(size: int) -> nn.Module:
    if size > 64:
        stem = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    else:
        stem = [nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU()]
    widths = [(64, 64, 1), (64, 64, 1), (64, 128, 2), (128, 128, 1), (128, 256, 2), (256, 256, 1), (256, 512, 2), (512, 512, 1)]
    return nn.Sequential(*stem, *(Residual(*w) for w in widths), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10))


def vgg11() -> nn.Module:
    layers: list[nn.Module] = []
    c = 3
    for width in (64, 0, 128, 0, 256, 256, 0, 512, 512, 0, 512, 512, 0):
        layers += [nn.Conv2d(c, width, 3, 1, 1), nn.ReLU()] if width else [nn.MaxPool2d(2)]
        c = width or c
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10))


class DenseLayer(nn.Module):
    def __init__(self, c: int, growth: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.BatchNorm2d(c), nn.ReLU(), nn.Conv2d(c, 4 * growth, 1, bias=False),
            nn.BatchNorm2d(4 * growth), nn.ReLU(), nn.Conv2d(4 * growth, growth, 3, 1, 1, bias=False),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x, self.body(x)], 1)


def densenet() -> nn.Module:
    growth, c = 12, 24
    layers: list[nn.Module] = [nn.Conv2d(3, c, 3, 1, 1, bias=False)]
    for block in range(3):
        for _ in range(6):
            layers.append(DenseLayer(c, growth))
            c += growth
        if block < 2:
            layers += [nn.BatchNorm2d(c), nn.ReLU(), nn.Conv2d(c, c // 2, 1, bias=False), nn.AvgPool2d(2)]
            c //= 2
    return nn.Sequential(*layers, nn.BatchNorm2d(c), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(c, 10))


class Block(nn.Module):
    def __init__(self, d: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.n1, self.n2 = nn.LayerNorm(d), nn.LayerNorm(d)
        self.qkv, self.out = nn.Linear(d, 3 * d), nn.Linear(d, d)
        self.mlp = nn.Sequential(nn.Linear(d, 4 * d), nn.GELU(), nn.Linear(4 * d, d))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, t, d = x.shape
        q, k, v = self.qkv(self.n1(x)).reshape(n, t, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        a = torch.softmax(q @ k.transpose(-1, -2) * (d // self.heads) ** -0.5, -1) @ v
        x = x + self.out(a.transpose(1, 2).reshape(n, t, d))
        return x + self.mlp(self.n2(x))


class Vit(nn.Module):
    def __init__(self, d: int = 192, depth: int = 6, heads: int = 3, patch: int = 4) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, d, patch, patch)
        self.cls = nn.Parameter(torch.randn(1, 1, d) * 0.02)
        self.pos = nn.Parameter(torch.randn(1, (32 // patch) ** 2 + 1, d) * 0.02)
        self.blocks = nn.Sequential(*(Block(d, heads) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(d), nn.Linear(d, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        t = self.patch(x).flatten(2).transpose(1, 2)
        t = torch.cat([self.cls.expand(t.shape[0], -1, -1), t], 1) + self.pos
        return self.head(self.norm(self.blocks(t))[:, 0])


NETS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "resnet18-32": (lambda: resnet18(32), 32),
    "vit-32": (Vit, 32),
    "vgg11-32": (vgg11, 32),
    "densenet-32": (densenet, 32),
    "resnet18-224": (lambda: resnet18(224), 224),
}


def export(net: nn.Module, size: int, folder: Path) -> onnx.ModelProto:
    path = folder / "net.onnx"
    axes = {"x": {0: "N"}, "z": {0: "N"}}
    x = torch.randn(2, 3, size, size)
    torch.onnx.export(
        net, (x,), str(path), input_names=["x"], output_names=["z"], dynamic_axes=axes, opset_version=17, dynamo=False
    )
    return onnx.load(path)


def session(model: onnx.ModelProto) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def medians(calls: list[Callable[[], object]], seconds: float = 6.0) -> list[float]:
    """Median times of calls made in turn, so that they meet the same disturbances."""
    for call in calls:
        call()
    times: list[list[float]] = [[] for _ in calls]
    start = time.perf_counter()
    while time.perf_counter() - start < seconds or len(times[0]) < 3:
        for call, taken in zip(calls, times, strict=True):
            t = time.process_time()
            call()
            taken.append(time.process_time() - t)
    return [statistics.median(t) for t in times]


def measure(name: str, batch: int) -> None:
    make, size = NETS[name]
    torch.manual_seed(0)
    torch.set_num_threads(1)
    net = make().eval()
    rng = np.random.default_rng(0)
    x = rng.standard_normal((batch, 3, size, size)).astype(np.float32)
    u = rng.standard_normal((SEEDS, batch, 10)).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        model = export(net, size, Path(folder))
    begin = time.perf_counter()
    graphs = {k: derivative_graph(model, input_name="x", output_name="z", kind=k) for k in ("vjp", "gram")}
    derive = time.perf_counter() - begin
    forward, vjp, gram = session(model), session(graphs["vjp"]), session(graphs["gram"])
    tx, tu = torch.tensor(x, requires_grad=True), torch.tensor(u)

    def backward() -> None:
        z = net(tx)
        for i in range(SEEDS):
            torch.autograd.grad(z, tx, tu[i], retain_graph=True)

    def plain() -> None:
        with torch.no_grad():
            net(tx)

    got = vjp.run(["g"], {"x": x, "u": u})[0]
    want = torch.autograd.grad(net(tx), tx, tu[0])[0].numpy()
    error = np.abs(got[0] - want).max() / np.abs(want).max()
    f, ten, product, torch_f, torch_ten = medians(
        [
            lambda: forward.run(None, {"x": x}),
            lambda: vjp.run(["g"], {"x": x, "u": u}),
            lambda: gram.run(["w"], {"x": x, "u": u[:1]}),
            plain,
            backward,
        ]
    )
    print(
        f"{name:13s} forward {1e3 * f:7.1f} ms | 10 Jᵀu {ten / f:5.1f} | u → JJᵀu {product / f:5.2f} | "
        f"torch forward {1e3 * torch_f:7.1f} ms, 10 backward {torch_ten / torch_f:5.1f} ({torch_ten / f:5.1f} of ours) | "
        f"torch/onnx time {torch_ten / ten:4.2f} | derive {derive:.2f} s | g against torch {error:.0e}"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("nets", nargs="*", default=list(NETS))
    parser.add_argument("--batch", type=int, default=1)
    given = parser.parse_args()
    for chosen in given.nets:
        measure(chosen, given.batch)
