"""Checks onnxfim on an accelerator: where nodes run, values, repeats, speed, memory, failures.

    python tests/gpu/check.py [--provider cuda] [--out FILE.json] [--minutes 8] [--only SECTION] [--quick]

Prints one line a thing, ``name value target PASS|FAIL``, most telling first; exit 1 where one fails. Each section runs in a process
of its own, so that a crash of one costs only its own lines. Others' trained models are used where they lie beside the repository.
``--provider cpu`` runs the same lines without an accelerator.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
for folder in (ROOT, ROOT / "tests" / "benchmarks"):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))

from tests.gpu import deployed, failures, machine, memory, placement, speed, values  # noqa: E402 - the script runs from any folder
from tests.gpu.lines import Bench, Line, read  # noqa: E402
from tests.support.places import MODELS, SHARED  # noqa: E402

#: Sections in their order, and how many seconds each may take at most.
SECTIONS: dict[str, tuple[Callable[[Bench], None], float]] = {
    "machine": (machine.check, 60),
    "placement": (placement.check, 90),
    "values": (values.check, 150),
    "rows": (values.check_rows, 60),
    "deployed": (deployed.check, 60),
    "speed": (speed.check, 150),
    "search": (speed.check_search, 60),
    "memory": (memory.check, 90),
    "failures": (failures.check, 90),
}


def main() -> int:
    """Run the sections within the time."""
    options = _arguments()
    if options.child:
        return _section(options)
    lines: list[Line] = []
    end = time.monotonic() + options.minutes * 60
    for name, (_, most) in SECTIONS.items():
        if options.only and name not in options.only:
            continue
        left = min(most, end - time.monotonic())
        if left < 5:
            lines.append(Line(name, name, "no time left", "within --minutes", False))
            print(lines[-1], flush=True)
            continue
        lines += _child(name, options, left)
    bench = Bench("all", options.provider, None, Path(), lines=lines)
    if options.out:
        bench.save(options.out)
    failed = sum(line.passed is False for line in lines)
    print(f"{len(lines)} lines, {sum(line.passed is True for line in lines)} pass, {failed} fail, "
          f"{options.minutes * 60 - (end - time.monotonic()):.0f} s")  # fmt: skip
    return int(failed > 0)


def _child(name: str, options: argparse.Namespace, seconds: float) -> list[Line]:
    """A section in a process of its own; what it saved before it died is kept."""
    print(f"# {name}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "lines.json")
        command = [sys.executable, __file__, "--child", name, "--provider", options.provider, "--out", str(out)]
        command += ["--quick"] if options.quick else []
        start = time.monotonic()
        try:
            code: int | str = subprocess.run(command, timeout=seconds, check=False).returncode
        except subprocess.TimeoutExpired:
            code = f"stopped after {seconds:.0f} s"
        lines = read(out)
    if code != 0:
        lines.append(Line(name, f"{name}: the section", f"exit {code}", "comes to its end", False))
        print(lines[-1], flush=True)
    print(f"  ({time.monotonic() - start:.0f} s)", flush=True)
    return lines


def _section(options: argparse.Namespace) -> int:
    """One section, here."""
    shared = SHARED if (MODELS / "manifest.json").is_file() else None
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(options.child, options.provider, shared, Path(folder), options.quick, out=options.out)
        SECTIONS[options.child][0](bench)
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--provider", default="cuda", help="short name of the provider under test")
    parser.add_argument("--out", type=Path, help="where the JSON goes")
    parser.add_argument("--minutes", type=float, default=8.0, help="for all sections together")
    parser.add_argument("--only", nargs="*", choices=tuple(SECTIONS), help="these sections alone")
    parser.add_argument("--quick", action="store_true", help="fewer samples and sizes")
    parser.add_argument("--child", choices=tuple(SECTIONS), help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
