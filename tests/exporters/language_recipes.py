"""Models of the transformers library, small and with random weights."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import torch
from torch import nn

import tests.exporters.torchvision_operators  # noqa: F401 - transformers imports torchvision where it is

import transformers  # isort: skip

from tests.exporters.data import digits
from tests.exporters.recipe import Made, Recipes
from tests.exporters.torch_export import export, in_float32, of_module
from tests.exporters.truth import by_torch

RECIPES = Recipes("transformers, PyTorch")
_CLASSES, _SHOWN = 10, 6


class Pictures(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return self.model(pixel_values=x).logits


class Embedded(Pictures):
    def forward(self, x):
        return self.model(inputs_embeds=x).logits


class Tokens(Pictures):
    def forward(self, input_ids, attention_mask):
        return self.model(input_ids=input_ids, attention_mask=attention_mask).logits


def larger(model: nn.Module) -> nn.Module:
    """The model with weights of four times the usual initial size: what a trained one looks like, not a constant."""
    for p in model.parameters():
        if p.dim() > 1:
            p.data *= 4
    return model


def _vit() -> nn.Module:
    return larger(transformers.ViTForImageClassification(transformers.ViTConfig(
        hidden_size=48, num_hidden_layers=2, num_attention_heads=4, intermediate_size=96, image_size=32, patch_size=8, num_labels=_CLASSES
    )))  # fmt: skip


def _convnext() -> nn.Module:
    return larger(transformers.ConvNextForImageClassification(transformers.ConvNextConfig(
        hidden_sizes=[16, 32, 48, 64], depths=[1, 1, 2, 1], num_labels=_CLASSES, image_size=32
    )))  # fmt: skip


def _resnet() -> nn.Module:
    return transformers.ResNetForImageClassification(transformers.ResNetConfig(
        embedding_size=16, hidden_sizes=[16, 32], depths=[1, 1], layer_type="basic", num_labels=_CLASSES
    ))  # fmt: skip


def _mobilevit() -> nn.Module:
    return (transformers.MobileViTForImageClassification(transformers.MobileViTConfig(
        image_size=64, patch_size=2, hidden_sizes=[16, 24, 32], neck_hidden_sizes=[8, 8, 16, 24, 32, 32, 48], num_attention_heads=2,
        num_labels=_CLASSES,
    )))  # fmt: skip


def _pictures(path: Path, build, side: int, **how) -> Made:
    torch.manual_seed(0)
    net = Pictures(build()).train()
    X, y = digits(_SHOWN, side, seed=7)
    for part in net.modules():  # batch statistics of the data, over all passes alike
        if isinstance(part, nn.BatchNorm2d):
            part.momentum = None
            part.reset_running_stats()
    with torch.no_grad():
        for _ in range(4):
            net(torch.tensor(digits(32, side, seed=3)[0]))
    net = net.eval()
    export(net, [torch.tensor(X[:2])], path, **how)
    return Made({"inputs": X}, y, known := of_module(net, X), own=in_float32(net, X, known))


def _bert() -> nn.Module:
    torch.manual_seed(0)
    return larger(transformers.BertForSequenceClassification(transformers.BertConfig(
        vocab_size=50, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, max_position_embeddings=16, num_labels=4
    ))).eval()  # fmt: skip


def _words(path: Path, *, tokens: bool) -> Made:
    bert = _bert()
    ids = torch.randint(0, 50, (_SHOWN, 10))
    mask = (torch.arange(10) < torch.randint(5, 11, (_SHOWN, 1))).long() if tokens else torch.ones(_SHOWN, 10, dtype=torch.long)
    words = bert.bert.embeddings.word_embeddings(ids).detach()
    double = copy.deepcopy(bert).double()
    parts = [
        by_torch(lambda t, m=mask[k : k + 1]: double(inputs_embeds=t, attention_mask=m).logits, words[k : k + 1].numpy())
        for k in range(_SHOWN)
    ]
    known = type(parts[0])(*(np.concatenate([getattr(p, name) for p in parts]) for name in ("lam", "norm")))
    if tokens:
        export(Tokens(bert), [ids[:2], mask[:2]], path, names=("input_ids", "attention_mask"))
        return Made({"input_ids": ids.numpy(), "attention_mask": mask.numpy()}, np.arange(_SHOWN) % 4, known)
    export(Embedded(bert), [words[:2]], path, names=("inputs_embeds",))
    return Made({"inputs": words.numpy()}, np.arange(_SHOWN) % 4, known)


RECIPES.add("hf_vit", lambda path: _pictures(path, _vit, 32), family="transformer")
RECIPES.add(
    "hf_vit_script_op14",
    lambda path: _pictures(path, _vit, 32, script=True, opset=14),
    family="transformer",
    by="transformers, TorchScript",
)
RECIPES.add("hf_convnext", lambda path: _pictures(path, _convnext, 32))
RECIPES.add("hf_resnet", lambda path: _pictures(path, _resnet, 32), family="resnet")
RECIPES.add("hf_mobilevit", lambda path: _pictures(path, _mobilevit, 64))
RECIPES.add("hf_bert_embeds", lambda path: _words(path, tokens=False), family="transformer")
RECIPES.add("hf_bert_tokens", lambda path: _words(path, tokens=True), family="transformer")
