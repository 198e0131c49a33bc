"""How long a slow run is silent without a terminal, and how right the time left is; run by hand: ``python tests/benchmarks/bench_progress.py [--only TEXT] [--no-dry]``.

Every run is one command in a process of its own, with its stdout and stderr in pipes. Prints, per run, its seconds, the longest time without a line, the
ratios of the time left as the lines tell it to the true one (of lines after a fifth of the run with more than five seconds to go), and how far `--dry-run` was off.
Other work on the machine comes and goes, and nobody can foretell that: each ratio stands there by the clock, and by the processor time that was really
left, at the pace at which the run got its processor in the 15 seconds before the line (of `--dry-run`: in the trial).
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import onnx

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.support import nets
from tests.support.places import MODELS
from tests.support.places import MORE_MODELS as MORE

IMAGENET = ("--data", str(MORE / "data_imagenet_mobilenet_nhwc.npz"))
CIFAR = ("--data", str(MODELS / "data_cifar10_c1.npz"))
RAW = ("--data", str(MODELS / "data_cifar10_raw255_nhwc.npz"))

RUNS: dict[str, tuple[str, ...]] = {
    "ImageNet int8": ("audit", str(MORE / "imagenet_mobilenetv1_025_qdq_int8.onnx"), *IMAGENET, "--samples", "12", "--budget", "1200"),
    "ImageNet int8, --isolate off": (
        "audit", str(MORE / "imagenet_mobilenetv1_025_qdq_int8.onnx"), *IMAGENET, "--samples", "12", "--budget", "1200", "--isolate", "off",
    ),
    "ImageNet float": ("audit", str(MORE / "imagenet_mobilenetv1_025.onnx"), *IMAGENET, "--samples", "24", "--attack", "l2",
                       "--attack-samples", "6"),
    "ResNet-20, sketch": ("audit", str(MODELS / "cifar_resnet20.onnx"), *CIFAR, "--samples", "30", "--method", "sketch",
                          "--budget", "4000"),
    "ResNet-20, attack": ("audit", str(MODELS / "cifar_resnet20.onnx"), *CIFAR, "--samples", "60", "--attack", "l2",
                          "--attack-samples", "30"),
    "ViT, attack": ("audit", str(MODELS / "cifar_vit_pgd_2_3_16.onnx"), *CIFAR, "--samples", "200", "--attack", "linf"),
    "ResNet-8 int8": ("audit", str(MODELS / "cifar_resnet8_qdq_int8.onnx"), *RAW, "--samples", "40", "--budget", "3000"),
    "three models": ("compare", *(str(MODELS / f"cifar_{n}.onnx") for n in ("resnet20", "resnet20_fp16", "cnna_sgd")), *CIFAR,
                     "--samples", "40", "--budget", "2000", "--method", "sketch"),
    "bounds of a ResNet-50": ("bounds", "resnet50.onnx"),
}  # fmt: skip
_LEFT = re.compile(r"(?:about|at most) ([^,;:]*?) left$")
_PER = {"s": 1, "min": 60, "h": 3600}


_PACE = 15.0  # seconds over which the pace is taken


@dataclass(frozen=True)
class Said:
    """Lines of a command with the seconds since it began and the processor time it had taken, when it ended, and the same of all."""

    lines: list[tuple[float, str, float]]
    seconds: float
    worked: float
    code: int

    @property
    def silence(self) -> float:
        """The longest time without a line."""
        times = [0.0, *(t for t, _, _ in self.lines), self.seconds]
        return max(b - a for a, b in itertools.pairwise(times))

    def ratios(self, *, by_work: bool) -> list[float]:
        """The time left as told over the true one, by the clock or by the processor."""
        found = []
        for t, line, worked in self.lines:
            left = seconds_of(line)
            if left is None or t <= 0.2 * self.seconds or self.seconds - t <= 5:
                continue
            since = max(((a, b) for a, _, b in self.lines if a <= t - _PACE), default=(0.0, 0.0))
            pace = (t - since[0]) / max(worked - since[1], 1e-9)
            found.append(left / (max(self.worked - worked, 0.1) * pace if by_work else self.seconds - t))
        return found


def work_of(pid: int) -> float:
    """Processor seconds of a process and of all that it started."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        children = [c for task in Path(f"/proc/{pid}/task").iterdir() for c in (task / "children").read_text().split()]
    except OSError:
        return 0.0
    own = sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")  # children that are gone among it
    return own + sum(work_of(int(c)) for c in children)


def worked_by_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def seconds_of(line: str) -> float | None:
    """The time left that a line tells, in seconds; None where it tells none."""
    found = _LEFT.search(line)
    if found is None:
        return None
    words = found[1].split()
    return float(sum(float(n) * _PER[unit] for n, unit in zip(words[::2], words[1::2], strict=True)))


def said_by(arguments: tuple[str, ...], folder: Path) -> Said:
    """What a command prints, and when."""
    lines: list[tuple[float, str, float]] = []
    began, before = time.monotonic(), worked_by_children()
    command = [sys.executable, "-m", "onnxfim", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=folder)

    def read() -> None:
        assert process.stdout is not None
        lines.extend((time.monotonic() - began, line.rstrip("\n"), work_of(process.pid)) for line in process.stdout)

    reader = threading.Thread(target=read)
    reader.start()
    process.wait()
    seconds = time.monotonic() - began
    reader.join()
    return Said(lines, seconds, worked_by_children() - before, process.returncode)


def tried(arguments: tuple[str, ...], folder: Path) -> tuple[float, float]:
    """Seconds that `--dry-run` tells, and the seconds that passed for each of the processor's meanwhile."""
    began, before = time.monotonic(), worked_by_children()
    command = [sys.executable, "-m", "onnxfim", *arguments, "--dry-run", "-o", "json=-"]
    found = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=True)
    told = json.loads(found.stdout)
    pace = (time.monotonic() - began) / (worked_by_children() - before)
    return float(told["seconds_besides"] + sum(r["seconds"] for r in told["runs"])), pace


def spread(ratios: list[float]) -> str:
    """The least, the middle and the largest ratio."""
    return f"{min(ratios):.2f} {median(ratios):.2f} {max(ratios):.2f}" if ratios else "–"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="")
    parser.add_argument("--no-dry", action="store_true")
    parser.add_argument("--lines", action="store_true", help="print the lines, too")
    asked = parser.parse_args()
    heads = ("by the clock", "by the processor", "dry run, s", "clock", "processor")
    print(
        f"{'run':30} {'code':>4} {'seconds':>8} {'lines':>6} {'silence':>8} {heads[0]:>16} {heads[1]:>16} {heads[2]:>11} {heads[3]:>6} {heads[4]:>9}"
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for title, arguments in RUNS.items():
            if asked.only not in title:
                continue
            if "resnet50.onnx" in arguments:
                net = nets.resnet(nets.Net(), (3, 4, 6, 3), width=64, bottleneck=True, size=224, stem=7)
                onnx.save(net, folder / "resnet50.onnx")
            told = None if asked.no_dry or arguments[0] == "bounds" else tried(arguments, folder)
            kept = () if arguments[0] == "bounds" else ("-o", f"json={title.split()[0]}.json")
            found = said_by((*arguments, *kept, *(("--no-cache",) if arguments[0] == "audit" else ())), folder)
            if asked.lines:
                print("\n".join(f"    {t:7.1f} {line[:150]}" for t, line, _ in found.lines))
            left = [spread(found.ratios(by_work=by_work)) for by_work in (False, True)]
            dry = ["–"] * 3
            if told is not None:
                by_clock = told[0] / found.seconds
                dry = [f"{told[0]:.0f}", f"{by_clock:.2f}", f"{by_clock * found.seconds / found.worked / told[1]:.2f}"]
            row = f"{title:30} {found.code:4} {found.seconds:8.1f} {len(found.lines):6} {found.silence:8.1f}"
            print(f"{row} {left[0]:>16} {left[1]:>16} {dry[0]:>11} {dry[1]:>6} {dry[2]:>9}", flush=True)


if __name__ == "__main__":
    main()
