"""Largest resident memory, in KiB, of this process after it audited a model, or only ran rows; bench_cost.py starts it.

python tests/benchmarks/peak_memory.py MODEL DATA audit|bare SAMPLES BUDGET BATCH ROWS
"""

from __future__ import annotations

import resource
import sys
from pathlib import Path

import numpy as np

from onnxfim import Settings
from onnxfim.auditing.run import audit
from onnxfim.graph.load import load_model
from onnxfim.runtime.hardware import Hardware
from onnxfim.runtime.session import open_session


def main(path: str, data: str, kind: str, samples: int, budget: int, batch: int, rows: int) -> None:
    """Both kinds import the same modules and hold the same data."""
    with np.load(data) as arrays:
        X, labels = arrays["inputs"], arrays["labels"] if "labels" in arrays.files else None
    if kind == "audit":
        audit(
            path,
            X,
            labels,
            Settings(samples=samples, budget=budget, batch=batch, providers=("cpu",), method="sketch", bounds=False),
        )
    else:
        load_model(path)
        session, _ = open_session(Path(path), Hardware(("cpu",)))
        name = session.get_inputs()[0].name
        block = np.resize(X, (batch, *X.shape[1:]))
        for _ in range(max(rows // batch, 1)):
            session.run(None, {name: block})
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


if __name__ == "__main__":
    main(*sys.argv[1:4], *map(int, sys.argv[4:]))
