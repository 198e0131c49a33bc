"""Odd values of the command line's own options."""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np

from onnxfim.cli.main import main
from tests.fuzz.families._bases import bases
from tests.fuzz.families._odd import NAMES, one
from tests.fuzz.harness import Case

_VALUES = (
    "", " ", "0", "-0", "-1", "1", "2", "3", "12", "0.5", "1e400", "-1e400", "nan", "inf", "-inf", "1e-400", "5e-324", "1" + "0" * 400, "9" * 5000, "0x10", "1_000", "٣", "²", "½", "１２", "True",
    "auto", "none", "nan:1", "0:1", "0,1", "1,0", "0,0", "0,nan", "inf,-inf", "1,2,3", ",", "1,", ",".join("1" * 500), "0.5,0.5", "-1e308,1e308", "5%", "0%", "100%", "150%", "nan%", "-5%", "%", "5 %",
    "lambda_max.mean > 1", "lambda_max.mean > nan", "lambda_max.mean > 1e400", "lambda_max", "> 1", "clean_accuracy < 90%", "findings.error", "findings", "x.y > 1", "lambda_max.mean > ٣", "flip_radius.p95 >= 0",
    "lambda_max.mean >" + "9" * 5000, "accuracy_change < -1%", "cpu", "cuda", "cuda:1", "cpu:-1", "cpu:x", "openvino", "tensorrt", "CPUExecutionProvider", "device_id=1", "cpu:device_id=1", "=", "a=", "=b",
    "a=b", "NCHW", "NHWC", "nchw", "l2", "linf", "sketch", "gradient", "exact", "random", "html", "missing.npy", "d.npz", "labels.npy", ".", "/etc/hostname", "--seed", "-", "--",
    "9223372036854775807", "9223372036854775808", "-9223372036854775808", "18446744073709551616", "0.999999999999", "1e-300", "1e300",
)  # fmt: skip
#: Options that would be about other files than the case's own, reach for a cluster, or end at once.
_LEFT_OUT = ("output-file", "html-assets", "config", "help", "cache-dir", "provider-library", "baseline", "ray")


def case(rng: np.random.Generator, folder: Path) -> Case:
    """One to three options of one command with odd values, beside those that it needs."""
    base = bases()[int(rng.integers(5))]
    (folder / "m.onnx").write_bytes(base.content)
    inputs = rng.standard_normal((4, *base.shape)).astype(base.dtype)
    np.savez(folder / "d.npz", inputs=inputs, labels=rng.integers(0, 3, 4))
    np.save(folder / "labels.npy", rng.integers(0, 3, 4))
    name = one(rng, ("audit", "audit", "audit", "audit", "compare", "bounds"))
    known = [
        o for o in main.commands[name].params if isinstance(o, click.Option) and not any(n.lstrip("-") in _LEFT_OUT for n in o.opts)
    ]
    given: list[str] = []
    for _ in range(int(one(rng, (1, 1, 2, 3)))):
        option = one(rng, known)
        flag = max(option.opts + (option.secondary_opts if rng.random() < 0.5 else []), key=len)
        given.append(flag)
        if not option.is_flag:
            near = option.type.choices if isinstance(option.type, click.Choice) else ()
            value = (
                str(one(rng, near))
                if near and rng.random() < 0.4
                else one(rng, (*_VALUES, *NAMES) if rng.random() < 0.3 else _VALUES)
            )
            value = value.replace("\x00", "")  # no program can be given one
            if rng.random() < 0.2:
                given[-1] = f"{flag}={value}"
            else:
                given.append(value)
    # What is asked for last holds: a case that means nothing else must be quick.
    common = ["--data", "d.npz", "--provider", "cpu", "--replay", "0", "--budget", "12", "--no-bounds"]
    started = {
        "audit": ["audit", "m.onnx", *common, "--no-cache", "-o", "json=a.json"],
        "compare": ["compare", "m.onnx", "m.onnx", *common, "-o", "json=c.json"],
        "bounds": ["bounds", "m.onnx", "-o", "json=b.json"],
    }[name]
    return Case((*started, *given), " ".join(given)[:150])
