"""Whether attribution finds a planted badly quantised layer: one layer's weights 8 to 30 times too coarse, or cut too short.

Run by hand: ``python -m tests.benchmarks.bench_attribution [--quick] [--models TEXT] [--tries N]``. In static QDQ and QOperator files of the
sample ResNet and ViT a layer is drawn in each try, and spoilt; it must be the first of the ranking.
"""

from __future__ import annotations

import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx

from onnxfim.auditing.attribution import attribute
from onnxfim.auditing.common_step import Candidate, at_common_step
from onnxfim.auditing.run import audit
from onnxfim.record.decision import Aggregate
from onnxfim.record.deployment import Attribution
from onnxfim.record.settings import Settings
from tests.benchmarks._common import SAMPLE_MODELS, arguments, print_table
from tests.support.planted_rounding import planted, sites
from tests.support.precisions import BY_NAME

AUDITED = 32
FORMS = ("QDQ int8", "QOperator uint8")
MODELS = ("digits_resnet", "digits_vit")


def without_shapes(path: Path, into: Path) -> Path:
    """A copy without the shapes that the exporter noted, which the quantiser refuses where they are those of one batch."""
    model = onnx.load(path)
    del model.graph.value_info[:]
    out = into / path.name
    onnx.save(model, out)
    return out


def tries(name: str, form: str, count: int, folder: Path) -> Iterator[list[object]]:
    """One row a try."""
    with np.load(SAMPLE_MODELS / "digits.npz") as arrays:
        inputs = arrays["inputs"]
    trained = SAMPLE_MODELS / f"{name}.onnx"
    good = onnx.load(BY_NAME[form].written(without_shapes(trained, folder), inputs, folder))
    rng = np.random.default_rng([17, MODELS.index(name), FORMS.index(form)])
    places = sites(good)
    for k in range(count):
        site = places[int(rng.integers(len(places)))]
        fault, factor = ("coarse", "clipped")[int(rng.integers(2))], float(rng.uniform(8, 30))
        path = folder / f"{name}_{FORMS.index(form)}_{k}.onnx"
        onnx.save(planted(good, site, fault, factor), path)
        settings = Settings(samples=AUDITED, replay=0, bounds=False, flip=False, budget=41, providers=("cpu",))
        both = [Candidate(p, inputs[:AUDITED], settings) for p in (trained, path)]
        chosen = at_common_step(both)
        audits = [audit(c.model, c.inputs, settings=s) for c, s in zip(both, chosen, strict=True)]
        start = time.perf_counter()
        found = attribute(*both, (audits[0], audits[1]))
        seconds = time.perf_counter() - start
        names = [n.node for n in found.nodes]
        rank = names.index(site.node) + 1 if site.node in names else None
        first, next_one = found.nodes[0], found.nodes[1]
        mine = next((n for n in found.nodes if n.node == site.node), None)
        by_outputs, by_logs = ranking(found, "outputs"), ranking(found, "logarithm")
        yield [
            name, form, site.node, f"{fault} {factor:.0f}×", f"{found.total.value:+.2f}", shown(found.change),
            None if mine is None else shown(mine.alone), shown((next_one if first is mine else first).alone),
            None if mine is None or mine.restored is None else shown(mine.restored), None if mine is None else shown(mine.logarithm),
            rank, 1 + by_outputs.index(site.node) if mine else None, 1 + by_logs.index(site.node) if mine else None, len(names),
            found.evaluations, f"{seconds:.1f}",
        ]  # fmt: skip


def ranking(found: Attribution, by: str) -> list[str]:
    """Names of the nodes by the size of another column."""
    return [n.node for n in sorted(found.nodes, key=lambda n: -abs(getattr(n, by).value or 0.0))]


def shown(a: Aggregate) -> str | None:
    if a.value is None or a.low is None or a.high is None:
        return None
    return f"{a.value:.2g} [{a.low:.2g}, {a.high:.2g}]"


def main() -> None:
    options = arguments(__doc__, ("--tries", {"type": int, "default": 5, "help": "tries of each model and form"}))
    headers = (
        "model", "form", "planted in", "fault", "change of ln λ", "change of the scores", "of the node alone", "of the next", "gone when restored",
        "ln λ of the node alone", "rank", "rank by outputs", "rank by ln λ", "nodes", "passes", "s",
    )  # fmt: skip
    ranks: list[object] = []

    def rows(folder: Path) -> Iterator[list[object]]:
        for name in MODELS[:1] if options.quick else MODELS:
            for form in FORMS:
                if options.models in f"{name} {form}":
                    for row in tries(name, form, 2 if options.quick else options.tries, folder):
                        ranks.append(row[10])
                        yield row

    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        print_table(headers, rows(Path(folder)), title="A planted badly quantised layer")
    print(f"\nfirst of the ranking: {sum(r == 1 for r in ranks)} of {len(ranks)}")


if __name__ == "__main__":
    main()
