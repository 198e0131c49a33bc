"""What keeping costs: ``python -m tests.benchmarks.bench_cache [SAMPLES]``.

Prints the microseconds of a processor that a sample's result takes to be kept and to be read again, its bytes on disk, the seconds
that a store of so many takes to open, and the bytes of a sample's outputs beside its result, for 10 and 1,000 classes.
"""

from __future__ import annotations

import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np

from onnxfim.auditing.cache import Measured
from onnxfim.auditing.run import audit
from onnxfim.auditing.store import FileStore
from onnxfim.record.packed import packed, unpacked
from onnxfim.record.settings import Settings
from tests.support import models


def bytes_below(folder: Path, name: str) -> int:
    """Bytes of the files in folders of such names."""
    return sum(p.stat().st_size for p in folder.glob(f"{name}/*"))


def of_classes(classes: int, samples: int = 40) -> None:
    """Bytes a sample of a small net, by the sketch."""
    model = models.Linear.draw(classes, 16)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        models.save(model.onnx(), folder / "m.onnx")
        settings = Settings(method="sketch", bounds=False, step=1e-3)
        found = audit(folder / "m.onnx", model.samples(samples), settings=settings, cache_dir=folder / "c")
        outputs = bytes_below(folder / "c", "*-outputs")
        results = bytes_below(folder / "c", "?" * 32)
    each = found.samples[0].directions
    print(
        f"K = {classes:,}: {outputs / samples:,.0f} bytes of outputs a sample ({each} directions), {results / samples:,.0f} of result and flip"
    )


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 50_000
    model = models.Linear.draw(10, 16)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        models.save(model.onnx(), folder / "m.onnx")
        found = audit(folder / "m.onnx", model.samples(20), settings=Settings(method="sketch", bounds=False, step=1e-3))
        rng = np.random.default_rng(0)
        records = [Measured(r, lead=tuple(map(tuple, rng.normal(size=(2, 86)).tolist()))) for r in found.samples]
        store = FileStore(folder / "s")
        began = time.process_time()
        for k in range(count):
            store.put_later(f"{k:032x}:{k}:result:86", packed(records[k % len(records)]) or b"")
        store.close()
        kept = time.process_time() - began
        size = sum(p.stat().st_size for p in (folder / "s").iterdir())
        began, clock = time.process_time(), time.perf_counter()
        again = FileStore(folder / "s")
        opened, clock = time.process_time() - began, time.perf_counter() - clock
        began = time.process_time()
        for k in range(0, count, 10):
            assert again.content(f"{k:032x}:{k}:result:86", partial(unpacked, Measured)) is not None
        read = (time.process_time() - began) * 10
    print(
        f"{count:,} results: kept at {kept / count * 1e6:.0f} µs each, read at {read / count * 1e6:.0f} µs, {size / count:,.0f} bytes each"
    )
    print(f"a store of them opens in {opened:.2f} s of a processor ({clock:.2f} s by the clock)")
    for classes in (10, 1000):
        of_classes(classes)


if __name__ == "__main__":
    main()
