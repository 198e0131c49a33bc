"""Nets over tokens, as PyTorch exports them: whole-number inputs, with and without a mask."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn

from tests.exporters.recipe import Made, Recipes
from tests.exporters.torch_export import export
from tests.exporters.truth import by_torch

RECIPES = Recipes("PyTorch")
_WORDS, _LENGTH, _WIDTH, _CLASSES, _SHOWN = 50, 10, 16, 4, 6


class Bag(nn.Module):
    """The mean of the words, and two layers."""

    def __init__(self):
        super().__init__()
        self.e = nn.Embedding(_WORDS, _WIDTH)
        self.f = nn.Sequential(nn.Linear(_WIDTH, 32), nn.Tanh(), nn.Linear(32, _CLASSES))

    def behind(self, e, mask=None):
        return self.f(e.mean(1) * 3)

    def forward(self, ids):
        return self.behind(self.e(ids))


class OverTime(Bag):
    """An LSTM over the words."""

    def __init__(self):
        super().__init__()
        self.r = nn.LSTM(_WIDTH, 12, batch_first=True)
        self.o = nn.Linear(12, _CLASSES)

    def behind(self, e, mask=None):
        return self.o(self.r(e)[0][:, -1]) * 3


class Masked(Bag):
    """The mean of those words that the mask keeps."""

    def behind(self, e, mask=None):
        keep = mask.to(e.dtype)[..., None]
        return self.f((e * keep).sum(1) / keep.sum(1) * 3)

    def forward(self, ids, mask):
        return self.behind(self.e(ids), mask)


def _made(path: Path, build: type[Bag], *, masked: bool = False) -> Made:
    torch.manual_seed(0)
    net = build().eval()
    ids = torch.randint(0, _WORDS, (_SHOWN, _LENGTH))
    mask = (torch.arange(_LENGTH) < torch.randint(4, _LENGTH, (_SHOWN, 1))).long()
    args = [ids[:2], mask[:2]] if masked else [ids[:2]]
    export(net, args, path, names=("input_ids", "attention_mask")[: len(args)])
    words = net.e(ids).detach().numpy()
    double = build()
    double.load_state_dict(net.state_dict())
    double = double.double().eval()
    parts = [by_torch(lambda t, m=mask[k : k + 1]: double.behind(t, m), words[k : k + 1]) for k in range(_SHOWN)]
    known = type(parts[0])(*(np.concatenate([getattr(p, name) for p in parts]) for name in ("lam", "norm")))
    inputs = {"input_ids": ids.numpy(), "attention_mask": mask.numpy()} if masked else {"inputs": ids.numpy()}
    return Made(inputs, np.arange(_SHOWN) % _CLASSES, known)


RECIPES.add("tok_bag", lambda path: _made(path, Bag))
RECIPES.add("tok_lstm", lambda path: _made(path, OverTime), family="recurrent")
RECIPES.add("tok_masked_bag", lambda path: _made(path, Masked, masked=True))
