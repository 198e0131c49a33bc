"""How tight and how fast the bounds are; run by hand: ``python tests/benchmarks/bench_bounds.py [--quick] [--models TEXT] [--full]``.

Prints, per trained model (ours, and others' where they are there), log10 L, how many decades looser the naive products are, and the measured sensitivity; with ``--full`` the time
of a ResNet-50-sized file, and FFT with Cholesky against Gram iteration per kernel.
"""

from __future__ import annotations

import math
import time

import numpy as np
import onnx
from _common import arguments, have_shared

from onnxfim.graph.graph import Graph
from onnxfim.spectral import spectral_bound
from onnxfim.spectral.norms import ConvGeometry, conv_norm
from tests.benchmarks.naive_bounds import four_unfoldings, naive_bounds, naive_conv_norm
from tests.support import nets, trained

KERNELS = (
    (64, 3, 7, 2, 224),
    (64, 64, 3, 1, 56),
    (128, 128, 3, 1, 28),
    (256, 256, 3, 1, 14),
    (512, 512, 3, 1, 7),
    (512, 512, 3, 2, 14),
)


def models(chosen: list[trained.Trained]) -> None:
    print(f"{'model':36} {'log10 L':>8} {'measured':>8} {'+four unfoldings':>16} {'+Frobenius':>10} {'seconds':>8}")
    for model in chosen:
        graph = Graph(onnx.load(model.path))
        begin = time.perf_counter()
        bound = spectral_bound(graph)
        seconds = time.perf_counter() - begin
        if bound.log10_lipschitz is None:
            print(f"{model.name:36} not available: {bound.reason[:90]}")
            continue
        naive = naive_bounds(graph)
        seen = f"{math.log10(max(s['logit_sensitivity'] for s in model.exact['samples'])):.2f}" if model.stored else "–"
        loose = [f"{v - bound.log10_lipschitz:.2f}" if v is not None else "–" for v in (naive.four_unfoldings, naive.frobenius)]
        print(f"{model.name:36} {bound.log10_lipschitz:8.2f} {seen:>8} {loose[0]:>16} {loose[1]:>10} {seconds:8.2f}")


def resnet50() -> None:
    model = nets.resnet(nets.Net(), (3, 4, 6, 3), width=64, bottleneck=True, size=224, stem=7)
    graph = Graph(model)
    begin = time.perf_counter()
    bound = spectral_bound(graph)
    size = model.ByteSize() / 1e6
    print(f"ResNet-50-sized file ({size:.0f} MB): {time.perf_counter() - begin:.1f} s, log10 L = {bound.log10_lipschitz}")


def kernels() -> None:
    rng = np.random.default_rng(0)
    print(
        f"{'kernel':28} {'Cholesky':>10} {'s':>6} {'Gram':>10} {'s':>6} {'4 unfoldings':>13} {'Frobenius':>10}   (ratios to Cholesky)"
    )
    for o, i, k, s, n in KERNELS:
        W = rng.standard_normal((o, i, k, k))
        geometry = ConvGeometry((s, s), (1, 1), (k // 2, k // 2), ((n, n // s),) * 2)
        figures = []
        for method in ("cholesky", "gram"):
            begin = time.perf_counter()
            figures.append((conv_norm(W, geometry, method=method).value, time.perf_counter() - begin))
        (a, ta), (b, tb) = figures
        loose = [f(W) / a for f in (four_unfoldings, naive_conv_norm)]
        print(f"{f'{o}×{i}×{k}×{k} /{s} at {n}':28} {a:10.2f} {ta:6.2f} {b / a:10.4f} {tb:6.2f} {loose[0]:13.3f} {loose[1]:10.3f}")


if __name__ == "__main__":
    options = arguments(__doc__, ("--full", {"action": "store_true", "help": "kernels and a large file too"}))
    known = trained.ALL if have_shared() and not options.quick else trained.OURS
    models([m for m in known.values() if options.models in m.name])
    if options.full:
        resnet50()
        kernels()
