"""Whole Jacobians of ten classes against the best way of PyTorch, on seven networks; and their cost in forward passes.

Run by hand: ``python tests/benchmarks/bench_gradients.py [NET ...] [--batch N ...] [--threads N ...] [--seconds S] [--quick]``.
Needs torch (weights are random) and onnxruntime.

A line per network, batch and number of threads: processor time and wall time of the derivative graph, called as an audit calls it,
over the smallest of six ways of PyTorch (a loop of backward passes, one batched by ``is_grads_batched``,
``torch.func.vmap(jacrev)``; each in both memory formats), in one run, taken in turn, medians. Below 1 the graph is faster. A way
that takes 1.2 times the best's processor time in a trial of four rows is not measured further. Threads of both wait without spinning, for
processor time on a shared machine is not to count idle turns. ``--keep FILE`` keeps each line in a JSON file and measures those that
it lacks; ``--table FILE`` prints what it holds as Markdown. ``--forward`` shows what the products cost in forward passes of the same
batch in the same runtime instead. ``--quick`` makes networks thinner and images smaller.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when torch is loaded
import torch
from torch import nn

from onnxfim.gradients import derivative_graph
from onnxfim.gradients.build import RESERVED
from onnxfim.gradients.calls import BoundedCalls, cost_of
from onnxfim.graph.prepare import prepare
from onnxfim.runtime.call_memory import CallMemory

SEEDS = 10
AIM = 0.85  # of the best way of PyTorch
_TRIAL, _HOPELESS = 4, 1.2  # rows of the trial of the ways, and times of the best in it that are too many
BATCHES, THREADS = (1, 8, 32), (1, 2)


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


def resnet18(size: int, width: int = 64) -> nn.Module:
    if size > 64:
        stem = [nn.Conv2d(3, width, 7, 2, 3, bias=False), nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    else:
        stem = [nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
    steps = [(1, 1, 1), (1, 1, 1), (1, 2, 2), (2, 2, 1), (2, 4, 2), (4, 4, 1), (4, 8, 2), (8, 8, 1)]
    blocks = (Residual(a * width, b * width, stride) for a, b, stride in steps)
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8 * width, 10))


def vgg11(thin: int = 1) -> nn.Module:
    layers: list[nn.Module] = []
    c = 3
    for width in (n // thin for n in (64, 0, 128, 0, 256, 256, 0, 512, 512, 0, 512, 512, 0)):
        layers += [nn.Conv2d(c, width, 3, 1, 1), nn.ReLU()] if width else [nn.MaxPool2d(2)]
        c = width or c
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(c, 512), nn.ReLU(), nn.Linear(512, 10))


class DenseLayer(nn.Module):
    def __init__(self, c: int, growth: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.BatchNorm2d(c), nn.ReLU(), nn.Conv2d(c, 4 * growth, 1, bias=False),
            nn.BatchNorm2d(4 * growth), nn.ReLU(), nn.Conv2d(4 * growth, growth, 3, 1, 1, bias=False),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x, self.body(x)], 1)


def densenet(depth: int = 6) -> nn.Module:
    growth, c = 12, 24
    layers: list[nn.Module] = [nn.Conv2d(3, c, 3, 1, 1, bias=False)]
    for block in range(3):
        for _ in range(depth):
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


def resnet20() -> nn.Module:
    widths = [(16, 16, 1), *[(16, 16, 1)] * 2, (16, 32, 2), *[(32, 32, 1)] * 2, (32, 64, 2), *[(64, 64, 1)] * 2]
    stem = [nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    return nn.Sequential(*stem, *(Residual(*w) for w in widths), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


def mlp(size: int = 32) -> nn.Module:
    layers = [nn.Linear(3 * size**2, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10)]
    return nn.Sequential(nn.Flatten(), *layers)


NETS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "mlp-32": (mlp, 32),
    "resnet20-32": (resnet20, 32),
    "resnet18-32": (lambda: resnet18(32), 32),
    "vit-32": (Vit, 32),
    "vgg11-32": (vgg11, 32),
    "densenet-32": (densenet, 32),
    "resnet18-224": (lambda: resnet18(224), 224),
}
QUICK: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "mlp-32": (mlp, 32),
    "resnet20-32": (resnet20, 32),
    "resnet18-32": (lambda: resnet18(32, width=16), 32),
    "vit-32": (lambda: Vit(d=96, depth=2), 32),
    "vgg11-32": (lambda: vgg11(thin=4), 32),
    "densenet-32": (lambda: densenet(depth=2), 32),
    "resnet18-224": (lambda: resnet18(224, width=16), 96),
}


def export(net: nn.Module, size: int, folder: Path) -> onnx.ModelProto:
    path = folder / "net.onnx"
    axes = {"x": {0: "N"}, "z": {0: "N"}}
    x = torch.randn(2, 3, size, size)
    torch.onnx.export(
        net, (x,), str(path), input_names=["x"], output_names=["z"], dynamic_axes=axes, opset_version=17, dynamo=False
    )
    return onnx.load(path)


def session(model: onnx.ModelProto, threads: int = 1) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    options.enable_mem_pattern = False  # as an audit opens it
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


Times = list[tuple[float, float]]  # processor and wall time of each call


def timed(call: Callable[[], object]) -> tuple[float, float]:
    """Processor and wall time of one call."""
    cpu, wall = time.process_time(), time.perf_counter()
    call()
    return time.process_time() - cpu, time.perf_counter() - wall


def medians(calls: Sequence[Callable[[], object]], seconds: float = 6.0) -> Times:
    """Median processor and wall times of calls made in turn, so that they meet the same disturbances; at least three of each."""
    first = [timed(call) for call in calls]
    long = sum(wall for _, wall in first) > seconds  # what a first call does beside is little then
    times = [[f] if long else [] for f in first]
    start = time.perf_counter()
    while time.perf_counter() - start < seconds or len(times[0]) < 3:
        for call, taken in zip(calls, times, strict=True):
            taken.append(timed(call))
    return [(statistics.median(c for c, _ in t), statistics.median(w for _, w in t)) for t in times]


def ways(net: nn.Module, x: np.ndarray, u: np.ndarray) -> dict[str, Callable[[], torch.Tensor]]:
    """The Jacobian in PyTorch, (SEEDS, N, *shape) or (N, SEEDS, *shape), by the way's name."""
    return {**_ways(net, x, u, torch.contiguous_format, ""), **_ways(net, x, u, torch.channels_last, " channels_last")}


def _ways(
    net: nn.Module, x: np.ndarray, u: np.ndarray, layout: torch.memory_format, label: str
) -> dict[str, Callable[[], torch.Tensor]]:
    net = copy.deepcopy(net).requires_grad_(False).to(memory_format=layout)  # weights take no gradient: the input's alone counts
    tx, tu = torch.tensor(x).to(memory_format=layout), torch.tensor(u)
    leaf = tx.clone().requires_grad_(True)

    def loop() -> torch.Tensor:
        z = net(leaf)
        return torch.stack([torch.autograd.grad(z, leaf, tu[i], retain_graph=i + 1 < len(tu))[0] for i in range(len(tu))])

    def batched() -> torch.Tensor:
        return torch.autograd.grad(net(leaf), leaf, tu, is_grads_batched=True)[0]

    def one(row: torch.Tensor) -> torch.Tensor:
        return net(row[None])[0]

    by_rows = torch.func.vmap(torch.func.jacrev(one))
    return {f"loop{label}": loop, f"batched{label}": batched, f"vmap(jacrev){label}": lambda: by_rows(tx)}


def prepared(name: str, batch: int, quick: bool) -> tuple[nn.Module, onnx.ModelProto, np.ndarray]:
    make, size = QUICK[name] if quick else NETS[name]
    torch.manual_seed(0)
    net = make().eval()
    x = np.random.default_rng(0).standard_normal((batch, 3, size, size)).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        return net, export(net, size, Path(folder)), x


def jacobians(model: onnx.ModelProto, threads: int) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """What an audit calls for ``Jᵀu`` of rows x (N, *shape) and cotangents u (S, N, K): in parts where that is less memory."""
    opened = session(derivative_graph(model, input_name="x", output_name="z", kind="vjp"), threads)
    memory = CallMemory(cost_of(prepare(model, input_name="x", output_name="z", reserved=RESERVED)))

    def run(session: Any, outputs: Sequence[str], feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        return list(session.run(list(outputs), dict(feeds)))

    calls = BoundedCalls(memory, SEEDS, tuple(d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim[1:]), run)
    return lambda x, u: calls(opened, ["z", "g"], {"x": x, "u": u})[1]


def called(net: nn.Module, ours: Callable[[np.ndarray, np.ndarray], np.ndarray], x: np.ndarray) -> dict[str, Callable[[], Any]]:
    """Calls of the Jacobian at the rows x, ours and those of PyTorch."""
    u = np.ascontiguousarray(np.broadcast_to(np.eye(SEEDS, dtype=np.float32)[:, None], (SEEDS, len(x), SEEDS)))
    return {"ours": lambda: ours(x, u), **ways(net, x, u)}


def against_torch(name: str, batches: list[int], threads: list[int], seconds: float, *, quick: bool, keep: Path | None) -> None:
    """Print a line per batch and number of threads, and keep it."""
    kept = read(keep)
    missing = [(number, batch) for number in threads for batch in batches if f"{name}/{batch}/{number}" not in kept]
    if not missing:
        return
    net, model, rows = prepared(name, max(batches), quick)
    for number, batch in missing:
        torch.set_num_threads(number)
        ours = jacobians(model, number)
        calls = called(net, ours, rows[: min(batch, _TRIAL)])
        calls["ours"]()
        want = calls["loop"]()
        error = float(np.abs(calls["ours"]() - want.numpy()).max() / np.abs(want.numpy()).max())
        first = {way: timed(call)[0] for way, call in calls.items() if way != "ours"}
        most = _HOPELESS * min(first.values())
        measured = ["ours", *(way for way, cpu in first.items() if cpu <= most)]
        calls = called(net, ours, rows[:batch])
        mine, *found = medians([calls[way] for way in measured], seconds)
        cell = {"ours": mine, "ways": dict(zip(measured[1:], found, strict=True)), "error": error}
        print(line(name, batch, number, cell), flush=True)
        if keep is not None:
            keep.write_text(json.dumps({**read(keep), f"{name}/{batch}/{number}": cell}, indent=1))


def read(keep: Path | None) -> dict[str, dict[str, Any]]:
    """The lines that a file holds."""
    return json.loads(keep.read_text()) if keep is not None and keep.exists() else {}


def ratios(cell: Mapping[str, Any]) -> list[tuple[float, str]]:
    """Processor and wall time over the best way's, and that way."""
    best = (min((times[i], way) for way, times in cell["ways"].items()) for i in (0, 1))
    return [(cell["ours"][i] / least, way) for i, (least, way) in enumerate(best)]


def line(name: str, batch: int, threads: int, cell: Mapping[str, Any]) -> str:
    (cpu, by_cpu), (wall, by_wall) = ratios(cell)
    return (
        f"{name:13s} batch {batch:2d}, threads {threads} | {1e3 * cell['ours'][0]:8.1f} ms | processor {cpu:4.2f} of {by_cpu} | "
        f"wall {wall:4.2f} of {by_wall} | difference {cell['error']:.0e}"
    )


def table(cells: Mapping[str, Mapping[str, Any]]) -> str:
    """Markdown of kept lines, those beyond the aim bold."""
    columns = sorted({tuple(map(int, key.split("/")[1:])) for key in cells}, key=lambda c: (c[1], c[0]))
    names = [name for name in NETS if any(key.startswith(f"{name}/") for key in cells)]
    heads = [f"batch {batch}, {threads} thread{'s' * (threads > 1)}" for batch, threads in columns]
    measured = sum(all(r <= AIM for r, _ in ratios(cell)) for cell in cells.values())
    lines = [
        f"A Jacobian of {SEEDS} classes against the best way of PyTorch {torch.__version__.partition('+')[0]} (ONNX Runtime "
        f"{ort.__version__}, CPU): processor time / wall time, medians of calls in turn; below 1 the derivative graph is faster. "
        f"{measured} of {len(cells)} at most {AIM} in both; what is above is bold. Made by `python tests/benchmarks/bench_gradients.py "
        "--keep FILE`, printed by `--table FILE`.",
        "",
        "| network | " + " | ".join(heads) + " |",
        "|---|" + "---|" * len(columns),
    ]
    for name in names:
        found = (cells.get(f"{name}/{batch}/{threads}") for batch, threads in columns)
        told = (" / ".join(f"**{r:.2f}**" if r > AIM else f"{r:.2f}" for r, _ in ratios(c)) if c else "–" for c in found)
        lines.append(f"| {name} | " + " | ".join(told) + " |")
    return "\n".join(lines)


def in_forward_passes(name: str, batch: int, seconds: float, *, quick: bool) -> None:
    """Print what products cost in forward passes of one thread."""
    torch.set_num_threads(1)
    net, model, x = prepared(name, batch, quick)
    u = np.random.default_rng(1).standard_normal((SEEDS, batch, 10)).astype(np.float32)
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
    calls = [
        lambda: forward.run(None, {"x": x}),
        lambda: vjp.run(["g"], {"x": x, "u": u}),
        lambda: gram.run(["w"], {"x": x, "u": u[:1]}),
        plain,
        backward,
    ]
    f, ten, product, torch_f, torch_ten = (cpu for cpu, _ in medians(calls, seconds))
    print(
        f"{name:13s} forward {1e3 * f:7.1f} ms | 10 Jᵀu {ten / f:5.1f} | u → JJᵀu {product / f:5.2f} | "
        f"torch forward {1e3 * torch_f:7.1f} ms, 10 backward {torch_ten / torch_f:5.1f} ({torch_ten / f:5.1f} of ours) | "
        f"torch/onnx time {torch_ten / ten:4.2f} | derive {derive:.2f} s | g against torch {error:.0e}"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("nets", nargs="*", default=list(NETS), metavar="NET")
    parser.add_argument("--batch", type=int, nargs="+", help=f"default: {BATCHES}; with --quick 2")
    parser.add_argument("--threads", type=int, nargs="+", help=f"default: {THREADS}; with --quick 1")
    parser.add_argument("--seconds", type=float, help="of each line's measurement; default: 6, with --quick 0.3")
    parser.add_argument("--keep", type=Path, metavar="FILE", help="JSON file of lines: those that it lacks are measured and kept")
    parser.add_argument("--table", type=Path, metavar="FILE", help="print the lines of such a file as Markdown, and end")
    parser.add_argument("--forward", action="store_true", help="cost in forward passes, on one thread")
    parser.add_argument("--quick", action="store_true", help="small networks, in some seconds")
    given = parser.parse_args()
    if given.table:
        print(table(read(given.table)))
        raise SystemExit
    sizes = given.batch or ([2] if given.quick else list(BATCHES))
    spent = given.seconds or (0.3 if given.quick else 6.0)
    for chosen in given.nets:
        if given.forward:
            for size in sizes:
                in_forward_passes(chosen, size, spent, quick=given.quick)
        else:
            numbers = given.threads or ([1] if given.quick else list(THREADS))
            against_torch(chosen, sizes, numbers, spent, quick=given.quick, keep=given.keep)
