"""Shows that two checkouts of onnxfim compute the same values.

Run by hand:

    python tests/benchmarks/compare_checkouts.py measure CHECKOUT OUT_DIR [--only PATTERN] [--shared PATH] [--jobs N]
    python tests/benchmarks/compare_checkouts.py diff OUT_A OUT_B [--tolerance 1e-9] [--expected FILE] [--strict]
    python tests/benchmarks/compare_checkouts.py run BASE NOW [--out DIR]

``measure`` runs the commands of `_checkout_jobs` with the code of CHECKOUT, each in an empty folder and with an environment of its
own, and keeps what they wrote and said. ``diff`` compares every value of two such folders: numbers to a relative tolerance, texts to
the letter, whatever layout the JSON has; times, versions and the platform are left out, a key that only B has is listed and is no
difference (``--strict``: it is). It ends with 0 where all is equal, 1 where something differs, 2 where it could not run.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from _checkout_jobs import Job, chosen, jobs, source
from _checkout_values import (
    TOLERANCE,
    Difference,
    Expected,
    Outcome,
    compare,
    general,
    grouped,
    read_document,
    read_expected,
    total,
    within,
)

EXPECTED = Path(__file__).with_name("expected_differences.txt")
ABOUT, RESULT = "about.json", "result.json"
TAIL = 4000  # characters kept of what a command printed
LIMIT = 600  # seconds for one command
DEPENDENCIES = ("onnx", "onnxruntime", "onnxruntime-gpu", "numpy", "scipy", "jinja2")

_CLOCK = re.compile(r"\b\d+(\.\d+)? s\b")


class Unusable(Exception):
    """What was given cannot be used; told in one line."""


@dataclass(frozen=True)
class Place:
    """Where one checkout is measured: its code, the folder of the real models, the folder of results, and one for scratch."""

    checkout: Path
    shared: Path
    out: Path
    scratch: Path

    @property
    def environment(self) -> dict[str, str]:
        """Variables that leave nothing to chance: one thread of linear algebra, a fixed hash seed, no settings of the user."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("ONNXFIM_", "GITHUB_", "PYTHON"))}
        threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        return {
            **kept, **threads, "PYTHONPATH": str(self.checkout), "PYTHONHASHSEED": "0", "PYTHONIOENCODING": "utf-8",
            "PYTHONPYCACHEPREFIX": str(self.scratch / "bytecode"), "XDG_CACHE_HOME": str(self.scratch / "cache"),
            "LOCALAPPDATA": str(self.scratch / "cache"), "CUDA_VISIBLE_DEVICES": "", "COLUMNS": "120", "NO_COLOR": "1",
        }  # fmt: skip


def measure(checkout: Path, out: Path, *, only: str, shared: Path | None, workers: int) -> None:
    """Run all commands with one checkout's code, and keep what they wrote below ``out``."""
    if not (checkout / "onnxfim").is_dir():
        raise Unusable(f"{checkout}: has no folder onnxfim, expected a checkout. Give the root of one.")
    checkout, out = checkout.resolve(), out.resolve()
    found = (shared or checkout.parent / "shared").resolve()
    if not (found / "models" / "manifest.json").is_file():
        print(f"left out: the real trained models are not at {found}")
    listed = chosen(jobs(checkout, found), only)
    if not listed:
        raise Unusable(f"--only {only}: fits no command, expected part of a name such as sketch/digits_mlp. Leave it out for all.")
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="checkouts-") as scratch:
        place = Place(checkout, found, out, Path(scratch).resolve())
        _check_code(place)
        _write_about(place)
        for done, (job, code, seconds) in enumerate(_in_order(listed, place, workers), start=1):
            print(f"[{done}/{len(listed)}] {job.name}: exit {code}, {seconds:.1f} s", flush=True)
    print(f"{len(listed)} commands in {(time.monotonic() - started) / 60:.1f} min: {out}")


def _in_order(listed: Sequence[Job], place: Place, workers: int) -> Iterator[tuple[Job, int | None, float]]:
    """Run the commands, each after those that it reads from."""
    done: set[str] = set()
    waiting = list(listed)
    with ThreadPoolExecutor(workers) as pool:
        while waiting:
            ready = [job for job in waiting if {source(n) for n in job.needs.values()} <= done]
            for job, (code, seconds) in zip(ready, pool.map(lambda j: _run(j, place), ready), strict=True):
                yield job, code, seconds
            done |= {job.name for job in ready}
            waiting = [job for job in waiting if job.name not in done]


def _run(job: Job, place: Place) -> tuple[int | None, float]:
    """Run one command in a folder of its own and move what it wrote below ``out``."""
    kept = place.out / job.name
    shutil.rmtree(kept, ignore_errors=True)
    kept.mkdir(parents=True)
    started = time.monotonic()
    with tempfile.TemporaryDirectory(dir=place.scratch) as folder:
        for name, need in job.needs.items():
            if (place.out / need).is_file():
                (Path(folder) / name).write_text(_pinned((place.out / need).read_text(encoding="utf-8")), encoding="utf-8")
        command = [sys.executable, "-m", "onnxfim", *job.arguments]
        code: int | None
        try:
            ended = subprocess.run(command, cwd=folder, env=place.environment, capture_output=True, timeout=LIMIT, check=False)
            code, said, complained = ended.returncode, ended.stdout.decode(errors="replace"), ended.stderr.decode(errors="replace")
        except subprocess.TimeoutExpired:
            code, said, complained = None, "", f"stopped after {LIMIT} s"
        for path in sorted(Path(folder).iterdir()):
            if path.name not in job.needs:
                shutil.move(path, kept / path.name)
        said, complained = (text.replace(folder, "FOLDER") for text in (said, complained))
    if job.prints is not None and code == 0:
        (kept / job.prints).write_text(said, encoding="utf-8")
        said = ""
    seconds = time.monotonic() - started
    record = {
        "command": ["onnxfim", *job.arguments], "exit_code": code, "seconds": seconds,
        "stdout": _CLOCK.sub("… s", said[-TAIL:]), "stderr": _CLOCK.sub("… s", complained[-TAIL:]),
    }  # fmt: skip
    (kept / RESULT).write_text(json.dumps(record, indent=1), encoding="utf-8")
    return code, seconds


def _pinned(text: str) -> str:
    """A saved audit with fixed times and version, so that what is made of it does not hang on the clock."""
    record = json.loads(text)
    run = record["run"]
    run["seconds"] = 1.0
    run["versions"]["onnxfim"] = "0"
    if "rows_per_second" in run.get("times", {}):
        run["times"]["rows_per_second"] = 1000.0
    if record.get("attack"):
        record["attack"]["seconds"] = 1.0
    return json.dumps(record)


def _check_code(place: Place) -> None:
    """See that the interpreter takes the code from the checkout, not from where onnxfim is installed."""
    command = [sys.executable, "-c", "import onnxfim; print(onnxfim.__file__)"]
    ended = subprocess.run(command, cwd=place.scratch, env=place.environment, capture_output=True, text=True, check=False)
    said = (ended.stdout or ended.stderr).strip()
    if ended.returncode or place.checkout not in Path(said).resolve().parents:
        raise Unusable(
            f"{place.checkout}: the interpreter finds {said!r}, expected onnxfim of this checkout. "
            "Use an environment in which PYTHONPATH goes first."
        )


def _write_about(place: Place) -> None:
    """Keep what was measured where; a folder belongs to one checkout."""
    about = place.out / ABOUT
    if about.is_file() and (other := json.loads(about.read_text(encoding="utf-8"))["checkout"]) != str(place.checkout):
        raise Unusable(f"{place.out}: holds values of {other}, expected those of {place.checkout} or none. Give another folder.")
    if not about.is_file() and place.out.is_dir() and any(place.out.iterdir()):
        raise Unusable(f"{place.out}: holds other files, expected a new folder. Give another one.")
    git = subprocess.run(["git", "rev-parse", "HEAD"], cwd=place.checkout, capture_output=True, text=True, check=False)
    machine = {"platform": platform.platform(), "python": platform.python_version(), "cpus": os.cpu_count(), **_versions()}
    folders = {"checkout": str(place.checkout), "shared": str(place.shared)}
    record = {**folders, "commit": git.stdout.strip() or None, "machine": machine}
    place.out.mkdir(parents=True, exist_ok=True)
    about.write_text(json.dumps(record, indent=1), encoding="utf-8")


def _versions() -> dict[str, str]:
    found = {}
    for name in DEPENDENCIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def diff(a: Path, b: Path, *, tolerance: float, expected: Sequence[Expected], strict: bool, most: int) -> bool:
    """Compare two folders of values, print what differs, and say whether nothing does."""
    one, other = _about(a), _about(b)
    if one["machine"] != other["machine"]:
        print(f"note: measured on different machines or versions: {one['machine']} and {other['machine']}")
    outcome, files = compare_folders(a, b, tolerance)
    allowed = {d.path: next((e for e in expected if e.covers(d.path)), None) for d in outcome.differences}
    meant = [d for d in outcome.differences if allowed[d.path] is not None]
    news = [d for d in outcome.differences if allowed[d.path] is None and d.kind == "only in B"]
    wrong = [d for d in outcome.differences if allowed[d.path] is None and (strict or d.kind != "only in B")]
    _print_differences(wrong, most)
    if not strict:
        _print_news(news)
    for entry in expected:
        covered = [d for d in meant if allowed[d.path] is entry]
        size = max((d.relative or 0.0 for d in covered), default=0.0)
        told = f"{len(covered)} differ, at most {size:.2g} relative" if covered else "nothing differs here"
        print(f"expected: {entry.pattern} ({entry.reason}): {told}")
    places = Counter(d.path.partition("#")[0] for d in wrong)
    names = ", ".join(places) if len(places) <= 5 else f"{', '.join(list(places)[:5])} and {len(places) - 5} more files"
    verdict = f"{len(wrong)} in {names}" if wrong else "none"
    largest = max([outcome.rounding, *(d.relative or 0.0 for d in wrong)])
    print(f"{outcome.compared} values compared in {files} files, largest relative difference {largest:.2g}, differing: {verdict}")
    return not wrong


def compare_folders(a: Path, b: Path, tolerance: float) -> tuple[Outcome, int]:
    """All differences of two folders of values, and how many files both have."""
    texts = [
        {p.relative_to(side).as_posix(): p for p in sorted(side.rglob("*")) if p.is_file() and p.name != ABOUT} for side in (a, b)
    ]
    places = [_places(_about(side)) for side in (a, b)]
    both = [name for name in texts[0] if name in texts[1]]
    found = []
    for name in both:
        sides = [_document(paths[name], place) for paths, place in zip(texts, places, strict=True)]
        found.append(within(compare(*sides, tolerance=tolerance), name))
    missing = [Difference(name, "only in A", "a file") for name in texts[0] if name not in texts[1]]
    added = [Difference(name, "only in B", None, "a file") for name in texts[1] if name not in texts[0]]
    return total([*found, Outcome(differences=(*missing, *added))]), len(both)


def _document(path: Path, places: dict[str, str]) -> Any:
    try:
        return read_document(path.name, path.read_text(encoding="utf-8"), places)
    except ValueError as error:
        raise Unusable(f"{path}: cannot be read ({error}), expected what onnxfim wrote. Measure it anew.") from error


def _about(folder: Path) -> dict[str, Any]:
    try:
        about: dict[str, Any] = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise Unusable(f"{folder}: has no readable {ABOUT} ({error}), expected a folder that `measure` wrote.") from error
    return about


def _places(about: dict[str, Any]) -> dict[str, str]:
    """What stands for a checkout's own folders when its texts are compared."""
    return {about["checkout"]: "CHECKOUT", about["shared"]: "SHARED"}


def _print_differences(differences: Sequence[Difference], most: int) -> None:
    """A line each, by file; at most ``most`` of a file (0 for all)."""
    for name, members in grouped(differences):
        print(f"{name}: {len(members)} differ")
        shown = members if most == 0 else members[:most]
        for difference in shown:
            print(f"  {str(difference).removeprefix(f'{name}#')}")
        if len(shown) < len(members):
            print(f"  … and {len(members) - len(shown)} more (--most 0 for all)")


def _print_news(news: Sequence[Difference]) -> None:
    """What only B has: a line for each kind of path, with how often it is there."""
    kinds = Counter(general(d.path.rpartition("/")[2]) for d in news)
    for kind, number in kinds.items():
        print(f"only in B (no difference): {kind} ×{number}")


def _expected(path: Path) -> tuple[Expected, ...]:
    try:
        return read_expected(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise Unusable(f"{path}: {error}") from error


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    measured, compared = argparse.ArgumentParser(add_help=False), argparse.ArgumentParser(add_help=False)
    add = measured.add_argument
    add("--only", default="", metavar="PATTERN", help="only commands whose name holds this (* for any text)")
    add("--shared", type=Path, metavar="PATH", help="real trained models  [default: shared beside the checkout]")
    add(
        "--jobs",
        type=int,
        default=1,
        metavar="N",
        help="commands at a time; the runtime's own threads fill the cores  [default: 1]",
    )
    add = compared.add_argument
    add("--tolerance", type=float, default=TOLERANCE, metavar="R", help=f"relative, of numbers  [default: {TOLERANCE:g}]")
    add("--expected", type=Path, default=EXPECTED, metavar="FILE", help="what may differ  [default: expected_differences.txt]")
    add("--strict", action="store_true", help="what only B has is a difference too")
    add("--most", type=int, default=20, metavar="N", help="differences shown of a file, 0 for all  [default: 20]")
    one = commands.add_parser("measure", parents=[measured], help="run the commands with a checkout's code")
    one.add_argument("checkout", type=Path)
    one.add_argument("out", type=Path)
    two = commands.add_parser("diff", parents=[compared], help="compare two measured folders")
    two.add_argument("a", type=Path)
    two.add_argument("b", type=Path)
    both = commands.add_parser("run", parents=[measured, compared], help="measure two checkouts and compare them")
    both.add_argument("base", type=Path)
    both.add_argument("now", type=Path)
    both.add_argument("--out", type=Path, metavar="DIR", help="folder of both sides' values  [default: a new temporary one]")
    return parser.parse_args()


def main() -> int:
    """The exit code: 0 equal or measured, 1 something differs, 2 could not run."""
    given = _arguments()
    try:
        if given.command == "measure":
            measure(given.checkout, given.out, only=given.only, shared=given.shared, workers=given.jobs)
            return 0
        expected = _expected(given.expected)
        if given.command == "diff":
            a, b = given.a, given.b
        else:
            out = given.out or Path(tempfile.mkdtemp(prefix="values-"))
            a, b = out / "base", out / "now"
            for checkout, folder in ((given.base, a), (given.now, b)):
                measure(checkout, folder, only=given.only, shared=given.shared, workers=given.jobs)
        same = diff(a, b, tolerance=given.tolerance, expected=expected, strict=given.strict, most=given.most)
        return 0 if same else 1
    except Unusable as problem:
        print(f"compare_checkouts: {problem}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
