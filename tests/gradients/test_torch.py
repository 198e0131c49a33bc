"""Networks from both PyTorch exporters, against autograd; skipped where torch is not installed."""

from __future__ import annotations

import warnings

import numpy as np
import onnx
import pytest
from numpy.testing import assert_allclose

from onnxfim.gradients import derivative_graph
from tests.support.gradient_nets import run
from tests.support.places import TORCH

torch = TORCH.load("torch")
from tests.support import torch_nets  # noqa: E402 - needs torch


@pytest.fixture(autouse=True)
def _quiet():
    """Exporters warn of their own deprecations."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.mark.parametrize("exporter", ["script", "dynamo"])
@pytest.mark.parametrize("batch", [None, 1], ids=["free", "fixed"])
@pytest.mark.parametrize("name", list(torch_nets.NETS))
def test_exported_network_matches_autograd(name, exporter, batch, tmp_path, rng):
    if exporter == "dynamo":
        TORCH.load("onnxscript")
        if batch == 1 and name not in ("vit", "swin"):
            pytest.skip("nothing holds the batch here that the other cases do not cover")
    net = torch_nets.make(name)
    torch_nets.export(net, tmp_path / "net.onnx", dynamo=exporter == "dynamo", batch=batch)
    model = onnx.load(tmp_path / "net.onnx")
    x = rng.standard_normal((3, 3, 32, 32)).astype(np.float32)
    u = rng.standard_normal((2, 3, 5)).astype(np.float32)
    tx = torch.tensor(x, requires_grad=True)
    z = net(tx)
    want = np.stack([torch.autograd.grad(z, tx, torch.tensor(c), retain_graph=True)[0].numpy() for c in u])
    vjp = derivative_graph(model, input_name="x", output_name="z", kind="vjp")
    got_z, got = run(vjp, {"x": x, "u": u}, ["z", "g"])
    assert_allclose(got_z, z.detach().numpy(), rtol=1e-4, atol=1e-4)  # float32, other kernels
    assert_allclose(got, want, rtol=1e-3, atol=2e-5 * np.abs(want).max())
    v = rng.standard_normal((2, 3, 3, 32, 32)).astype(np.float32)
    (w,) = run(derivative_graph(model, input_name="x", output_name="z", kind="jvp"), {"x": x, "v": v}, ["w"])
    left, right = np.einsum("snk,snk->sn", u, w), np.einsum("sncij,sncij->sn", v, got)
    assert_allclose(left, right, atol=1e-4 * np.abs(w).max() * np.sqrt(5))
