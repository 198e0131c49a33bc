"""torchvision's and timm's families, with batch statistics of the data, at 64² or what they take; weights are random."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

import tests.exporters.torchvision_operators  # noqa: F401 - before torchvision, which needs them

import timm  # isort: skip
from torchvision import models  # isort: skip

from tests.exporters.data import digits
from tests.exporters.recipe import Made, Recipes
from tests.exporters.torch_export import export, fit, in_float32, of_module

RECIPES = Recipes("torchvision, PyTorch")
CLASSES = 10
_SHOWN = 6


def _vgg() -> nn.Module:
    net = models.vgg11_bn(num_classes=CLASSES)
    net.avgpool = nn.AdaptiveAvgPool2d((2, 2))
    net.classifier = nn.Sequential(nn.Linear(2048, 128), nn.ReLU(), nn.Dropout(), nn.Linear(128, CLASSES))
    return net


def _vit() -> nn.Module:
    return models.VisionTransformer(64, 16, num_layers=4, num_heads=4, hidden_dim=96, mlp_dim=192, num_classes=CLASSES)


def _maxvit() -> nn.Module:
    return models.MaxVit(
        (64, 64), stem_channels=32, partition_size=2, block_channels=[32, 64], block_layers=[1, 2], head_dim=16,
        stochastic_depth_prob=0.0, num_classes=CLASSES,
    )  # fmt: skip


def _plain(name: str, **how: object) -> Callable[[], nn.Module]:
    return lambda: getattr(models, name)(num_classes=CLASSES, **how)


#: Name: what builds it, the side of its pictures, and the class of the architecture.
TORCHVISION: dict[str, tuple[Callable[[], nn.Module], int, str | None]] = {
    "alexnet": (_plain("alexnet"), 64, "vgg"),
    "vgg11_bn": (_vgg, 64, "vgg"),
    "resnet18": (_plain("resnet18"), 64, "resnet"),
    "resnet50": (_plain("resnet50"), 64, "resnet"),
    "resnext50_32x4d": (_plain("resnext50_32x4d"), 64, "resnet"),
    "wide_resnet50_2": (_plain("wide_resnet50_2"), 64, "resnet"),
    "densenet121": (_plain("densenet121"), 64, "densenet"),
    "mobilenet_v2": (_plain("mobilenet_v2"), 64, "resnet"),
    "mobilenet_v3_small": (_plain("mobilenet_v3_small"), 64, "hybrid"),
    "efficientnet_b0": (_plain("efficientnet_b0"), 64, "hybrid"),
    "googlenet": (_plain("googlenet", aux_logits=False, init_weights=False), 64, "hybrid"),
    "inception_v3": (_plain("inception_v3", aux_logits=False, init_weights=False), 96, "hybrid"),
    "squeezenet1_1": (_plain("squeezenet1_1"), 64, "hybrid"),
    "shufflenet_v2": (_plain("shufflenet_v2_x0_5"), 64, "hybrid"),
    "mnasnet0_5": (_plain("mnasnet0_5"), 64, "resnet"),
    "regnet_y_400mf": (_plain("regnet_y_400mf"), 64, "hybrid"),
    "convnext_tiny": (_plain("convnext_tiny"), 64, "resnet"),
    "swin_t": (_plain("swin_t"), 64, "transformer"),
    "vit_b_16": (_vit, 64, "transformer"),
    "maxvit_t": (_maxvit, 64, "hybrid"),
}
TIMM = {"mobilenetv4_conv_small": "resnet", "efficientvit_b0": "hybrid", "ghostnet_050": "hybrid"}


def settled(net: nn.Module, size: int, steps: int) -> nn.Module:
    """The net with batch statistics of the data; nothing is dropped, and a few steps of training move its weights."""
    X, y = digits(96, size, seed=1)

    def counted_anew() -> None:
        for part in net.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.momentum = None
                part.reset_running_stats()

    for part in net.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0
    counted_anew()
    if steps:
        fit(net, X, y, steps, rate=1e-3)
    counted_anew()
    net.train()
    with torch.no_grad():
        for start in range(0, len(X), 48):
            net(torch.tensor(X[start : start + 48]))
    return net.eval()


def _made(path: Path, build: Callable[[], nn.Module], size: int, *, steps: int = 3, script: bool = False) -> Made:
    torch.manual_seed(0)
    net = settled(build(), size, steps)
    X, y = digits(_SHOWN, size, seed=7)
    export(net, [torch.tensor(X[:2])], path, script=script)
    known = of_module(net, X)
    return Made({"inputs": X}, y, known, own=in_float32(net, X, known))


for _name, (_build, _size, _family) in TORCHVISION.items():
    RECIPES.add(f"tv_{_name}", lambda path, b=_build, s=_size: _made(path, b, s), family=_family)
for _name in ("resnet18", "mobilenet_v2"):
    _build, _size, _family = TORCHVISION[_name]
    RECIPES.add(
        f"tv_{_name}_script",
        lambda path, b=_build, s=_size: _made(path, b, s, script=True),
        family=_family,
        by="torchvision, TorchScript",
    )
for _name, _family in TIMM.items():
    RECIPES.add(
        f"timm_{_name}", lambda path, n=_name: _made(path, lambda: timm.create_model(n, pretrained=False, num_classes=CLASSES), 64, steps=0),
        by="timm, PyTorch", family=_family,
    )  # fmt: skip
