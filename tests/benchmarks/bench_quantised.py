"""Every precision that ONNX Runtime's own tools write, on trained models: the audit's value against the float file's at one scale.

Run by hand: ``python -m tests.benchmarks.bench_quantised [--quick] [--models TEXT] [--schemes TEXT] [--samples N] [--write]``;
``--write`` puts the table into docs/precisions.md. Each file is made in a temporary folder and audited at default settings (without
bounds, replay and flips). A file that rounds is then measured again at the step that its audit chose, and so is the float file: the
same samples, directions and step. A file with a derivative is held against the float file's derivative. ``onnx_ir`` is needed for
weights of few bits.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from onnxfim.auditing.run import audit
from onnxfim.errors import OnnxFimError
from onnxfim.record.audit import Audit
from onnxfim.record.settings import Settings
from tests.benchmarks._common import ROOT, arguments, print_table, ratio_of_means
from tests.support import trained
from tests.support.precisions import SCHEMES, Scheme

PAGE = ROOT / "docs" / "precisions.md"
BEGIN, END = "<!-- table: bench_quantised --write -->", "<!-- end of the table -->"
SAMPLES = 24
WITHIN = 0.15
#: Float files in whose precisions all schemes are audited; the others have files of their own, or a few schemes.
WHOLE = ("digits_resnet", "digits_vit")
SOME = (
    "cifar_cnna_sgd", "cifar_resnet20", "cifar_resnet8_float", "cifar_resnet2b_adv", "cifar_vit_pgd_2_3_16", "kws_dscnn_float", "fashion_cnna_kw",
    "mnist_mlp2x256_fgsm", "textline_direction_mobilenetv3",
)  # fmt: skip
#: Of the other models: one scheme of each kind, and of weights alone where there are products of matrices to hold them.
FEW = ("QDQ int8 per channel", "QOperator uint8", "dynamic uint8", "float16", "bfloat16 weights", "MatMulNBits 4, block 32")
HEADERS = (
    "model", "scheme", "samples", "verdict", "kind", "mean λ_max [95 %]", "step / std", "/ float at that scale [95 %]", "/ float's derivative",
    "/ surrogate's", "passes a sample", "seconds", "what it says",
)  # fmt: skip


@dataclass
class Twin:
    """A float file with what was measured of it."""

    model: trained.Trained
    samples: int
    truth: Audit | None = None

    def audited(self, path: Path, inside: tuple[float, float] | None = None, **options: Any) -> Audit:
        inputs, labels = (self.model.arrays[k][: self.samples] for k in ("inputs", "labels"))
        inputs = inputs if inside is None else np.clip(inputs, *inside).astype(inputs.dtype)
        return audit(path, inputs, labels, Settings(replay=0, bounds=False, flip=False, providers=("cpu",), **options))

    def derived(self) -> Audit:
        """The float file by its derivative."""
        self.truth = self.truth or self.audited(self.model.path)
        return self.truth

    def at_scale_of(self, found: Audit) -> Audit:
        """The float file at the step of another audit, at samples moved inside the range that its file tells apart, as it does."""
        step, clipped = found.step, found.step.clipped
        reach = step.step + (step.dither or 0.0)
        inside = None if clipped is None else (clipped.low + reach, clipped.high - reach)
        return self.audited(self.model.path, inside, method="sketch", scheme="dithered", step=step.step)


def values(found: Audit) -> dict[int, float]:
    """The samples' values by index."""
    return {s.index: s.lambda_max.value for s in found.samples if s.lambda_max.value is not None}


def compared(found: Audit, other: Audit) -> tuple[float, float, float] | None:
    """Ratio of means over the samples that both have, with its paired interval."""
    ours, theirs = values(found), values(other)
    both = sorted(ours.keys() & theirs.keys())
    if len(both) < 2 or not sum(theirs[i] for i in both):
        return None
    return ratio_of_means(np.array([ours[i] for i in both]), np.array([theirs[i] for i in both]))


def written(one: tuple[float, float, float] | None) -> str | None:
    return None if one is None else f"{one[0]:.2f} [{one[1]:.2f}, {one[2]:.2f}]"


def row(twin: Twin, name: str, path: Path) -> list[object]:
    """One file of the table."""
    started = time.perf_counter()
    try:
        found = twin.audited(path)
    except OnnxFimError as error:
        return [twin.model.name, name, twin.samples, "refused", *[None] * 8, shown(str(error))]
    seconds = time.perf_counter() - started
    errors = [f.id for f in found.findings if f.level == "error"]
    apart = ["rows-apart"] if any(f.id == "rows-apart" for f in found.findings) else []
    mean = found.aggregates["lambda_max"].mean
    by_steps = found.run.method != "gradient"
    if by_steps:
        step = found.step.step
        again = twin.audited(path, method="sketch", scheme="dithered", step=step)
        same = compared(again, twin.at_scale_of(again))
    else:
        same = compared(found, twin.derived())
    check = None if found.gradient is None else found.gradient.check
    interval = "no interval" if mean.low is None or mean.high is None else f"{mean.low:.3g}, {mean.high:.3g}"
    kinds = sorted({s.lambda_max.kind for s in found.samples if s.lambda_max.value is not None})
    return [
        twin.model.name, name, len(found.samples), found.verdict, " and ".join(kinds), None if mean.value is None else f"{mean.value:.4g} [{interval}]",
        f"{found.step.step / found.step.input_std:.3g}" if by_steps else "none: derivative", (written(same) or "") + off(same) or None, written(compared(found, twin.derived())),
        None if check is None else f"{check.ratio:.2f}", f"{found.run.evaluations / max(len(found.samples), 1):.0f}", f"{seconds:.1f}",
        ", ".join([*errors, *apart]) or None,
    ]  # fmt: skip


def off(same: tuple[float, float, float] | None) -> str:
    return "" if same is None or abs(same[0] - 1) <= WITHIN else " (!)"


def shown(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def made(twin: Twin, scheme: Scheme, into: Path) -> Path | str:
    """The file, or why the tool did not write it."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            return scheme.written(twin.model.path, twin.model.arrays["inputs"], into)
    except Exception as error:
        return f"not written by the tool: {type(error).__name__}: {shown(str(error).splitlines()[0])[:120]}"


def rows(options: Any, folder: Path) -> Iterator[list[object]]:
    for name in WHOLE[:1] if options.quick else (*WHOLE, *SOME):
        if name not in trained.ALL or options.models not in name:
            continue
        twin = Twin(trained.ALL[name], options.samples)
        yield row(twin, "float32", twin.model.path)
        for other in trained.ALL.values():
            if other.parent == name and options.schemes in other.name:
                yield row(twin, f"{other.name} (as published)", other.path)
        for scheme in SCHEMES:
            if (name not in WHOLE and scheme.name not in FEW) or options.schemes not in scheme.name:
                continue
            path = made(twin, scheme, folder)
            if isinstance(path, Path) and scheme.changes_nothing(twin.model.path, path):
                path = "changes nothing: no product of matrices holds weights that it would pack"
            yield (
                row(twin, scheme.name, path) if isinstance(path, Path) else [name, scheme.name, None, "no file", *[None] * 8, path]
            )


def table(found: Sequence[Sequence[object]]) -> str:
    lines = ["| " + " | ".join(HEADERS) + " |", "|" + "---|" * len(HEADERS)]
    lines += ["| " + " | ".join("–" if cell is None else str(cell) for cell in line) + " |" for line in found]
    return "\n".join(lines)


def main() -> None:
    """Print the table, and write it where asked; ``--tables`` takes rows that were printed before in place of audits."""
    options = arguments(
        __doc__, ("--schemes", {"default": "", "help": "only schemes whose name holds this text"}),
        ("--tables", {"nargs": "*", "type": Path, "help": "files with printed tables to join", "default": []}),
        ("--samples", {"type": int, "default": SAMPLES}), ("--write", {"action": "store_true", "help": f"write {PAGE.name}"}),
    )  # fmt: skip
    found: list[list[object]] = []

    def kept(folder: str) -> Iterator[list[object]]:
        for one in rows(options, Path(folder)):
            found.append(one)
            yield one

    for path in options.tables:
        lines = [
            line for line in path.read_text("utf-8").splitlines() if line.startswith("| ") and not line.startswith("| model |")
        ]
        found += [line.strip("| ").split(" | ") for line in lines]
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        print_table(HEADERS, () if options.tables else kept(folder), title=f"Precisions, {options.samples} samples")
    if options.write:
        text = PAGE.read_text("utf-8")
        before, after = text[: text.index(BEGIN) + len(BEGIN)], text[text.index(END) :]
        PAGE.write_text(f"{before}\n\n{table(found)}\n\n{after}", "utf-8")


if __name__ == "__main__":
    main()
