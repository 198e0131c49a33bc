"""onnxfim beside its peers, on the same file, the same images and one thread each: what each answers, its cost, how near it comes.

    python tests/benchmarks/bench_peers.py [--quick] [--models TEXT] [--keep FOLDER] [--write]

PyTorch has the same weights (onnx2torch reads the file) and its fastest way to a Jacobian; the published estimators are those of
bench_published.py; foolbox's DDN attacks the images; ART gives CLEVER. A peer that is not installed is a row that says so
(``pip install 'onnxfim[peers]'``). Ways that are compared are timed in turn, medians. λ_max is judged by float64 values, distances
by the smallest L2 change that any of the tools found on that image, confirmed on the file. ``--keep`` keeps the rows of each model
in a folder, and measures what it lacks; ``--write`` puts the tables into docs/method.md and docs/peers.md.
"""

from __future__ import annotations

import json
import platform
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import onnxruntime
from _common import ROOT, Case, arguments, have_shared, print_table, sample_case, shared_cases
from _peer_rows import PARTS, Row, measured, one_thread
from _peers import ALL

MODELS, QUICK = ("digits_resnet", "cifar_cnna_sgd"), ("digits_mlp",)
SHORT, PAGE = ROOT / "docs" / "method.md", ROOT / "docs" / "peers.md"
BEGIN, END = "<!-- table: bench_peers --write -->", "<!-- end of the table -->"


def milliseconds(seconds: float | None) -> str:
    """Three digits at most, seconds from one on."""
    if seconds is None:
        return "–"
    return f"{seconds:,.0f} s" if seconds >= 10 else f"{seconds:.1f} s" if seconds >= 1 else f"{1e3 * seconds:.3g} ms"


PAGE_HEADERS = (
    "model",
    "tool",
    "passes a sample, forward + backward",
    "processor time a sample",
    "wall",
    "how near",
    "how it was run",
)
HEADERS = ("tool", "what it answers", "passes a sample", "processor time a sample", "how near")


def page_cells(model: str, row: Row) -> list[str]:
    """One tool on one model."""
    near = "; ".join(words.format(value) for words, value in (*row.near.items(), *row.more.items()))
    return [model, row.tool, row.passes, milliseconds(row.cpu), milliseconds(row.wall), row.missing or near, row.note or "–"]


def readme_cells(rows: Sequence[Row]) -> list[str]:
    """One tool on all models, the values of the models in their order."""
    first = rows[0]

    def each(values: Sequence[str]) -> str:
        return values[0] if len(set(values)) == 1 else " / ".join(values)

    near = first.missing or ", ".join(words.format(each([row.near[words] for row in rows])) for words in first.near)
    return [first.tool, first.answers, each([row.passes for row in rows]), each([milliseconds(row.cpu) for row in rows]), near]


def table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(["| " + " | ".join(line) + " |" for line in (headers, ["---"] * len(headers), *rows)])


def machine() -> str:
    """Processor, versions, threads: what the times were measured with."""
    try:
        name = next(
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines()
            if line.startswith("model name")
        )
    except (OSError, StopIteration):
        name = platform.processor() or platform.machine()
    peers = ", ".join(f"{peer.name} {peer.version}" for peer in ALL)
    return f"{name}, one thread each; Python {platform.python_version()}, ONNX Runtime {onnxruntime.__version__}, {peers}"


def put(path: Path, text: str) -> None:
    """Put a table between the marks of a page."""
    page = path.read_text("utf-8")
    before, after = page[: page.index(BEGIN) + len(BEGIN)], page[page.index(END) :]
    path.write_text(f"{before}\n\n{text}\n\n{after}", "utf-8")


def write(found: Mapping[str, Sequence[Row]], short: Path = SHORT, page: Path = PAGE) -> None:
    """Put the tables into the page of the method and into the page of details."""
    names = " / ".join(f"`{name}`" for name in found)
    tools = [rows for rows in zip(*found.values(), strict=True) if "--attack" not in rows[0].tool]
    put(short, f"{table(HEADERS, [readme_cells(rows) for rows in tools])}\n\n({names}; {machine()}.)")
    put(page, f"{machine()}.\n\n{table(PAGE_HEADERS, [page_cells(name, row) for name, rows in found.items() for row in rows])}")


def cases(text: str, *, quick: bool) -> Iterator[Case]:
    """The models that are there."""
    yield from (sample_case(name) for name in (QUICK if quick else MODELS[:1]) if text in name)
    if not quick and have_shared():
        yield from (case for case in shared_cases() if case.name in MODELS and text in case.name)


def rows_of(case: Case, folder: Path | None, *, quick: bool) -> list[Row]:
    """The rows of a model, each part measured or from the folder that keeps it."""
    rows = []
    for part in PARTS:
        kept = folder / f"{case.name}-{part}.json" if folder else None
        if kept and kept.is_file():
            rows += [Row(**row) for row in json.loads(kept.read_text("utf-8"))]
            continue
        found = measured(case, part, quick=quick)
        if kept:
            kept.write_text(json.dumps([asdict(row) for row in found], indent=1), "utf-8")
        rows += found
    return rows


def main() -> None:
    warnings.simplefilter("ignore")
    options = arguments(
        __doc__,
        ("--keep", {"type": Path, "metavar": "FOLDER", "help": "keep the rows of each model there, and take those that are there"}),
        ("--write", {"action": "store_true", "help": "write the tables of docs/method.md and docs/peers.md"}),
    )
    one_thread()
    found: dict[str, list[Row]] = {}

    def rows() -> Iterator[list[str]]:
        for case in cases(options.models, quick=options.quick):
            found[case.name] = rows_of(case, options.keep, quick=options.quick)
            yield from (page_cells(case.name, row) for row in found[case.name])

    used = time.process_time()
    print_table(PAGE_HEADERS, rows(), title=machine())
    print(f"\n{time.process_time() - used:.0f} s of processor time")
    if options.write:
        write(found)


if __name__ == "__main__":
    main()
