"""Small nets of PyTorch's two exporters: one operator or habit each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from tests.exporters import truth
from tests.exporters.data import digits, levels
from tests.exporters.recipe import Array, Made, Recipes
from tests.exporters.torch_export import export, fit, of_module, trained

RECIPES = Recipes("PyTorch")
X, Y = digits(300, 16, 1)
STEPS = X[:, 0].copy()  # (n, 16, 16): a row of the picture a step


def block(channels: int = 8) -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU())


class Base(nn.Module):
    """A convolution, a pool, a layer; others change what is in front of it or behind."""

    def __init__(self, classes: int = 10, *, any_size: bool = False):
        super().__init__()
        self.b, self.p, self.f = block(), nn.AdaptiveAvgPool2d(4) if any_size else nn.AvgPool2d(4), nn.Linear(128, classes)

    def forward(self, x):
        return self.f(self.p(self.b(x)).flatten(1))


class GridSample(Base):
    def __init__(self):
        super().__init__()
        self.loc = nn.Linear(256, 6)
        nn.init.normal_(self.loc.weight, std=0.01)
        self.loc.bias.data = torch.tensor([1.0, 0.05, 0.03, -0.05, 1.0, 0.02])

    def forward(self, x):
        grid = functional.affine_grid(self.loc(x.flatten(1)).view(-1, 2, 3), x.shape, align_corners=False)
        return super().forward(functional.grid_sample(x, grid, align_corners=False))


class GridConstant(Base):
    def __init__(self):
        super().__init__()
        self.register_buffer(
            "g", functional.affine_grid(torch.tensor([[[0.9, 0.1, 0.0], [-0.1, 0.9, 0.0]]]), (1, 1, 16, 16), align_corners=False)
        )

    def forward(self, x):
        return super().forward(functional.grid_sample(x, self.g.expand(x.shape[0], -1, -1, -1), align_corners=False))


class Scatter(Base):
    def forward(self, x):
        y = x.clone()
        y[:, :, 4:8, 4:8] = torch.tanh(x[:, :, 4:8, 4:8]) * 2
        y[:, :, 0, :] = 0
        return super().forward(y)


class IndexPut(Base):
    def forward(self, x):
        return super().forward(torch.zeros_like(x).index_copy(2, torch.arange(0, 16, 2), x[:, :, :8]))


class ScatterAdd(nn.Module):
    def __init__(self):
        super().__init__()
        self.f = nn.Linear(16, 10)
        self.register_buffer("i", torch.arange(256) % 16)

    def forward(self, x):
        v = x.flatten(1)
        return self.f(torch.zeros(v.shape[0], 16, dtype=v.dtype).scatter_add(1, self.i.expand(v.shape[0], -1), v))


class TopK(nn.Module):
    def __init__(self):
        super().__init__()
        self.b, self.f = block(), nn.Linear(96, 10)

    def forward(self, x):
        return self.f(self.b(x).flatten(2).topk(12, dim=2).values.flatten(1))


class Sort(nn.Module):
    def __init__(self):
        super().__init__()
        self.f = nn.Linear(256, 10)

    def forward(self, x):
        return self.f(torch.sort(x.flatten(1), dim=1).values)


class GatherND(nn.Module):
    def __init__(self):
        super().__init__()
        self.f = nn.Linear(40, 10)
        self.register_buffer("i", torch.randint(0, 16, (40,)))
        self.register_buffer("j", torch.randint(0, 16, (40,)))

    def forward(self, x):
        return self.f(torch.relu(x[:, 0][:, self.i, self.j]))


class GatherSorted(nn.Module):
    def __init__(self):
        super().__init__()
        self.f = nn.Linear(256, 10)

    def forward(self, x):
        v = x.flatten(1)
        return self.f(torch.gather(v, 1, v.argsort(1)) * 0.5 + torch.cumsum(v, 1) * 0.1)


class Einsum(nn.Module):
    def __init__(self):
        super().__init__()
        self.w, self.f = nn.Parameter(torch.randn(16, 16, 8) * 0.1), nn.Linear(64, 10)

    def forward(self, x):
        h = torch.einsum("bchw,hwk->bk", x, self.w)
        return self.f(torch.einsum("bi,bj->bij", h, torch.tanh(h)).flatten(1))


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.e, self.a = nn.Linear(16, 16), nn.MultiheadAttention(16, 2, batch_first=True)
        self.n, self.f = nn.LayerNorm(16), nn.Linear(16, 10)

    def forward(self, x):
        h = self.e(x)
        return self.f(self.n(h + self.a(h, h, h, need_weights=False)[0]).mean(1))


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)
        self.e, self.t, self.f = nn.Linear(16, 16), nn.TransformerEncoder(layer, 2), nn.Linear(16, 10)

    def forward(self, x):
        return self.f(self.t(self.e(x)).mean(1))


class Recurrent(nn.Module):
    def __init__(self, kind: str = "LSTM", **how: Any):
        super().__init__()
        self.r = getattr(nn, kind)(16, 12, batch_first=True, **how)
        self.f = nn.Linear(24 if how.get("bidirectional") else 12, 10)

    def forward(self, x):
        return self.f(self.r(x)[0][:, -1])


class Segmenter(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.d, self.u, self.o = block(), nn.Conv2d(8, 8, 3, 2, 1), nn.ConvTranspose2d(8, 8, 2, 2), nn.Conv2d(16, 4, 1)

    def forward(self, x):
        h = self.a(x)
        return self.o(torch.cat([h, self.u(functional.relu(self.d(h)))], 1))


class Upsampler(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.o = block(), nn.Conv2d(8, 4, 1)

    def forward(self, x):
        return functional.interpolate(
            self.o(functional.max_pool2d(self.a(x), 2)), size=x.shape[2:], mode="bilinear", align_corners=False
        )


class Yolo(nn.Module):
    """Boxes and scores in one tensor (N, 4 + classes, anchors)."""

    def __init__(self):
        super().__init__()
        self.a, self.o = block(), nn.Conv2d(8, 7, 1)

    def forward(self, x):
        q = self.o(functional.max_pool2d(self.a(x), 4)).flatten(2)
        return torch.cat([q[:, :4] * 16, q[:, 4:].sigmoid()], 1)


class TwoInputs(Base):
    def __init__(self):
        super().__init__()
        self.g = nn.Linear(3, 10)

    def forward(self, x, m):
        return super().forward(x) + self.g(m)


class TwoOutputs(Base):
    def forward(self, x):
        z = super().forward(x)
        return z, z.softmax(1)


class Normalised(Base):
    def forward(self, x):
        return super().forward((x / 255.0 - 0.45) / 0.22).softmax(-1)


class LogSoftmax(Base):
    def forward(self, x):
        return super().forward(x).log_softmax(1)


class Sigmoid(Base):
    def forward(self, x):
        return super().forward(x).sigmoid()


class Fourier(Base):
    def forward(self, x):
        return super().forward(torch.log1p(torch.fft.rfft2(x).abs())[:, :, :, :8].repeat(1, 1, 1, 2))


class ShortTime(nn.Module):
    def __init__(self):
        super().__init__()
        self.f = nn.Linear(33, 10)

    def forward(self, x):
        f = torch.stft(x.flatten(1), 64, 16, return_complex=False, window=torch.hann_window(64, dtype=x.dtype))
        return self.f(f.pow(2).sum(-1).mean(2))


class Loop(Base):
    def forward(self, x):
        for _ in range(3):
            x = x + 0.1 * torch.tanh(x)
        return super().forward(x)


class Norms(nn.Module):
    def __init__(self):
        super().__init__()
        self.c, self.g = nn.Conv2d(1, 8, 3, padding=1, padding_mode="reflect"), nn.GroupNorm(4, 8)
        self.i, self.l = nn.InstanceNorm2d(8, affine=True), nn.LocalResponseNorm(3)
        self.p, self.f = nn.PReLU(8), nn.Linear(200, 10)

    def forward(self, x):
        h = self.p(self.l(self.i(functional.mish(self.g(self.c(x))))))
        return self.f(functional.lp_pool2d(h.abs() + 0.1, 2, 3, 3).flatten(1))


class Unfold(nn.Module):
    def __init__(self):
        super().__init__()
        self.f = nn.Linear(72, 10)

    def forward(self, x):
        return self.f(functional.normalize(functional.unfold(x, 3, stride=2).mean(2).repeat(1, 8), dim=1))


class Distances(nn.Module):
    def __init__(self):
        super().__init__()
        self.c = nn.Parameter(torch.randn(10, 256) * 0.5)

    def forward(self, x):
        return -((x.flatten(1)[:, None] - self.c).pow(2).sum(-1) + 1e-6).sqrt()


class Moved(Base):
    def forward(self, x):
        return super().forward(functional.pixel_shuffle(functional.pixel_unshuffle(torch.roll(x.flip(3), 3, 2), 2), 2).clamp(-2, 2))


class Bytes(Base):
    def forward(self, x):
        return super().forward(x.float() / 127.5 - 1)


def _small(
    name: str,
    build: Callable[[], nn.Module],
    data: Array = X,
    *,
    labels: Array = Y,
    family: str | None = None,
    **how: Any,
) -> None:
    script = how.get("script", False)
    RECIPES.add(
        name, lambda path: trained(build, data, labels, path, **how), family=family,
        by="PyTorch, TorchScript" if script else "PyTorch",
    )  # fmt: skip


_small("t_base", Base)
for _name, _build in (
    ("gridsample", GridSample), ("gridconst", GridConstant), ("scatter", Scatter), ("indexput", IndexPut), ("scatteradd", ScatterAdd),
    ("topk", TopK), ("sort", Sort), ("gathernd", GatherND), ("gather_argsort_cumsum", GatherSorted), ("einsum", Einsum), ("fft", Fourier),
    ("stft", ShortTime), ("loop", Loop), ("norms", Norms), ("unfold", Unfold), ("distances", Distances), ("roi", Moved), ("logsoftmax", LogSoftmax),
):  # fmt: skip
    _small(f"t_{_name}", _build)
_small("t_scatter_script_op11", Scatter, script=True, opset=11)
_small("t_gridconst_script_op16", GridConstant, script=True, opset=16)
_small("t_mha", Attention, STEPS, family="transformer")
_small("t_mha_script_op14", Attention, STEPS, script=True, opset=14, family="transformer")
_small("t_mha_op23", Attention, STEPS, opset=23, family="transformer")
_small("t_encoder", Encoder, STEPS, family="transformer")
_small("t_encoder_script", Encoder, STEPS, script=True, family="transformer")
for _kind in ("LSTM", "GRU", "RNN"):
    _small(f"t_{_kind.lower()}", lambda kind=_kind: Recurrent(kind), STEPS, family="recurrent")
_small("t_lstm_script", Recurrent, STEPS, script=True, family="recurrent")
_small("t_bilstm_script", lambda: Recurrent("LSTM", bidirectional=True), STEPS, script=True, family="recurrent")
_small("t_lstm_two_layers", lambda: Recurrent("LSTM", num_layers=2), STEPS, family="recurrent")
for _name, _build in (("seg", Segmenter), ("segup", Upsampler)):
    _small(f"t_{_name}", _build, X, steps=0, n=6, labelled=False, **({} if _name == "seg" else {"free": (0, 2, 3)}))
_small("t_normin_softmax", Normalised, levels(X).astype(np.float32), steps=0, logits=lambda m, t: m(t).log())
_small("t_sigmoid", Sigmoid, steps=0, logits=lambda m, t: torch.logit(m(t)), lam=truth.sigmoid_lambda)
_small("t_twoout", TwoOutputs, steps=0, logits=lambda m, t: m(t)[0], outputs=("y", "p"))
_small("t_dynHW", lambda: Base(any_size=True), free=(0, 2, 3))
for _rows in (1, 3, 4, 8):
    _small(f"t_fixed{_rows}", Base, free=False, rows=_rows)
_small("t_fixed8_mha", Attention, STEPS, free=False, rows=8, family="transformer")
_small("t_fixed8_lstm", Recurrent, STEPS, free=False, rows=8, family="recurrent")
_small("t_fixed1_lstm_script", Recurrent, STEPS, free=False, rows=1, script=True, family="recurrent")
for _opset in (9, 11, 13):
    _small(f"t_op{_opset}_script", Norms, script=True, opset=_opset)
for _opset in (17, 20):
    _small(f"t_op{_opset}_script", Encoder, STEPS, script=True, opset=_opset, family="transformer")
for _opset in (18, 20, 22, 23, 24):
    _small(f"t_op{_opset}", Encoder, STEPS, opset=_opset, family="transformer")


def _two_inputs(path: Path) -> Made:
    torch.manual_seed(0)
    extra = torch.ones(1, 3)
    module = fit(TwoInputs(), X, Y, 30, held=(extra,))
    export(module, [torch.tensor(X[:2]), extra.expand(2, 3)], path, names=("x", "m"))
    known = of_module(module, X[:12], logits=lambda m, t: m(t, torch.ones(1, 3, dtype=torch.float64)))
    return Made({"x": X[:12], "m": np.ones((12, 3), np.float32)}, Y[:12], known, options=("--input", "x"))


def _five_heads(path: Path) -> Made:
    torch.manual_seed(0)

    class Captcha(nn.Module):
        def __init__(self):
            super().__init__()
            self.b, self.heads = block(), nn.ModuleList(nn.Linear(128, 12) for _ in range(5))

        def forward(self, x):
            h = functional.adaptive_avg_pool2d(self.b(x), 4).flatten(1)
            return tuple(head(h) for head in self.heads)

    module = Captcha().eval()
    export(module, [torch.tensor(X[:2])], path, outputs=[f"digit{k}" for k in range(5)])
    known = of_module(module, X[:6], logits=lambda m, t: torch.stack(m(t), dim=2))
    return Made({"inputs": X[:6]}, None, known, options=("--output", "all"))


def _yolo(path: Path) -> Made:
    made = trained(Yolo, X, Y, path, steps=0, known=False)
    return Made(made.inputs, None, options=("--output-kind", "detection"))


def _regression(path: Path) -> Made:
    made = trained(lambda: Base(1), X, Y, path, steps=0, n=12, lam=truth.gaussian_lambda)
    return Made(made.inputs, None, made.truth, options=("--output-kind", "gaussian"))


def _binary(path: Path) -> Made:
    made = trained(lambda: Base(1), X, (Y > 4).astype(np.int64), path, steps=0, lam=truth.sigmoid_lambda)
    return Made(made.inputs, made.labels, made.truth, options=("--output-kind", "sigmoid"))


def _bytes(path: Path) -> Made:
    torch.manual_seed(0)
    rows = levels(X).astype(np.uint8)
    module = Bytes().eval()
    export(module, [torch.tensor(rows[:2])], path)
    known = of_module(module, rows[:12], logits=lambda m, t: Base.forward(m, t / 127.5 - 1))
    return Made({"inputs": rows[:12]}, Y[:12], known)


RECIPES.add("t_two_inputs", _two_inputs)
RECIPES.add("t_five_heads", _five_heads)
RECIPES.add("t_yolo", _yolo)
RECIPES.add("t_reg", _regression)
RECIPES.add("t_binary", _binary)
RECIPES.add("t_uint8", _bytes)
