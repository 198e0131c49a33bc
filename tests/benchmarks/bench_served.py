"""What asking a served model costs in this program, beside the same rows through the file in it.

    python tests/benchmarks/bench_served.py [--quick] [--models NAME]

A small server of the tests answers on loopback, from the file on ONNX Runtime, in a thread of this process. ``client`` is seconds of a
processor in making requests and reading answers, ``whole`` what a request takes from its first byte to the last with the server's
own work in it, ``file`` the same rows through a session here. The ratio of the first to the last is what the wire costs this program.
"""

from __future__ import annotations

import statistics
import time

import numpy as np
from _common import SAMPLE_MODELS, arguments, print_table

from onnxfim import from_url
from onnxfim.auditing.opening_functions import open_function
from onnxfim.record.settings import Settings
from tests.support.serving import Model, onnx_function, served

ROWS = (16, 128, 512)
MODELS = ("digits_mlp", "digits_resnet", "digits_vit")


def measured(name: str, rows: int, *, binary: bool, repeats: int) -> tuple[str, str, str, str, str, str, str]:
    """A line of the table."""
    path = SAMPLE_MODELS / f"{name}.onnx"
    with np.load(SAMPLE_MODELS / "digits.npz") as data:
        X = np.resize(data["inputs"], (rows, *data["inputs"].shape[1:])).astype(np.float32)
    answer = onnx_function(path)
    answer(X)
    here = []
    for _ in range(repeats):
        began = time.process_time()
        answer(X)
        here.append(time.process_time() - began)
    with served({name: Model(answer, X.shape[1:], 10)}, binary=binary) as server:
        subject = open_function(from_url(server.url, concurrency=1), X, Settings(batch=rows))
        forward = subject.forward
        before = forward.traffic.requests, forward.traffic.own_seconds, forward.traffic.seconds, forward.traffic.sent
        for _ in range(repeats):
            forward.outputs(X)
        asked = forward.traffic.requests - before[0]
        client = (forward.traffic.own_seconds - before[1]) / asked
        whole = (forward.traffic.seconds - before[2]) / asked
        sent = (forward.traffic.sent - before[3]) / asked
    file = statistics.median(here)
    ms = [f"{1e3 * t:.2f}" for t in (client, whole, file)]
    return name, "binary" if binary else "JSON", f"{rows}", f"{sent / 1e3:.0f}", *ms[:2], f"{ms[2]} ({client / file:.2g} times)"


def main() -> None:
    """Print the table."""
    given = arguments(__doc__)
    sizes = ROWS[:2] if given.quick else ROWS
    lines = [
        measured(name, rows, binary=binary, repeats=10 if given.quick else 40)
        for name in MODELS
        if given.models in name
        for binary in (True, False)
        for rows in sizes
    ]
    print_table(("model", "wire", "rows", "kB up", "client ms", "whole ms", "file ms (client / file)"), lines)


if __name__ == "__main__":
    main()
