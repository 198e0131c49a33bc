"""How long a slow run is silent without a terminal, and how right the time left is; run by hand: ``python tests/benchmarks/bench_progress.py [--only TEXT] [--no-dry]``.

Every run is one command in a process of its own, with its stdout and stderr in pipes. Prints, per run, its seconds, the longest time without a line, the
ratios of the time left as the lines tell it to the true one (of lines after a fifth of the run with more than five seconds to go), and how far `--dry-run` was off.
On a machine that other work keeps busy now and then all but the silences tell of that too.
"""

from __future__ import annotations

import argparse
import itertools
import json
import re
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import onnx

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.support import nets
from tests.support.places import SHARED

MODELS, MORE = SHARED / "models", SHARED / "models_more"
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


@dataclass(frozen=True)
class Said:
    """Lines of a command with the seconds since it began, and when it ended."""

    lines: list[tuple[float, str]]
    seconds: float
    code: int

    @property
    def silence(self) -> float:
        """The longest time without a line."""
        times = [0.0, *(t for t, _ in self.lines), self.seconds]
        return max(b - a for a, b in itertools.pairwise(times))

    @property
    def ratios(self) -> list[float]:
        """The time left as told over the true one."""
        told = [(t, left) for t, line in self.lines if (left := seconds_of(line)) is not None]
        late = [(t, left) for t, left in told if t > 0.2 * self.seconds and self.seconds - t > 5]
        return [left / (self.seconds - t) for t, left in late]


def seconds_of(line: str) -> float | None:
    """The time left that a line tells, in seconds; None where it tells none."""
    found = _LEFT.search(line)
    if found is None:
        return None
    words = found[1].split()
    return float(sum(float(n) * _PER[unit] for n, unit in zip(words[::2], words[1::2], strict=True)))


def said_by(arguments: tuple[str, ...], folder: Path) -> Said:
    """What a command prints, and when."""
    lines: list[tuple[float, str]] = []
    began = time.monotonic()
    command = [sys.executable, "-m", "onnxfim", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=folder)

    def read() -> None:
        assert process.stdout is not None
        lines.extend((time.monotonic() - began, line.rstrip("\n")) for line in process.stdout)

    reader = threading.Thread(target=read)
    reader.start()
    process.wait()
    seconds = time.monotonic() - began
    reader.join()
    return Said(lines, seconds, process.returncode)


def tried(arguments: tuple[str, ...], folder: Path) -> float:
    """Seconds that `--dry-run` tells."""
    found = subprocess.run(
        [sys.executable, "-m", "onnxfim", *arguments, "--dry-run", "-o", "json=-"], capture_output=True, text=True, cwd=folder, check=True
    )  # fmt: skip
    told = json.loads(found.stdout)
    return float(told["seconds_besides"] + sum(r["seconds"] for r in told["runs"]))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="")
    parser.add_argument("--no-dry", action="store_true")
    parser.add_argument("--lines", action="store_true", help="print the lines, too")
    asked = parser.parse_args()
    print(f"{'run':30} {'code':>4} {'seconds':>8} {'lines':>6} {'silence':>8} {'left, told / true':>20} {'dry run / true':>15}")
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
                print("\n".join(f"    {t:7.1f} {line[:150]}" for t, line in found.lines))
            ratios = found.ratios
            left = f"{min(ratios):.2f} to {max(ratios):.2f} ({len(ratios)})" if ratios else "–"
            dry = "–" if told is None else f"{told:.0f} s, {told / found.seconds:.2f}"
            print(
                f"{title:30} {found.code:4} {found.seconds:8.1f} {len(found.lines):6} {found.silence:8.1f} {left:>20} {dry:>15}",
                flush=True,
            )


if __name__ == "__main__":
    main()
