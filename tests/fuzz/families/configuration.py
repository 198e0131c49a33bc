"""Configuration files: values of wrong types, unknown keys, bytes that are no TOML, files that are none."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from onnxfim.cli.config import settable
from onnxfim.cli.main import main
from tests.fuzz.families._bases import bases
from tests.fuzz.families._odd import NAMES, one
from tests.fuzz.harness import Case

_VALUES = (
    '"text"', '""', "-1", "0", "1", "2", "12", "0.5", "1e400", "-1e400", "nan", "inf", "-inf", "1" + "0" * 400, "1" + "0" * 5000, "0x10", "0o7", "0b1", "1_000", "true", "false",
    "[]", "[1, 2]", '["a", "b"]', "[[1], [2]]", "[true]", "[0.1, 0.2]", "{}", "{ a = 1 }", "1979-05-27", "1979-05-27T07:32:00Z", "07:32:00", "'''\nmany\nlines'''", '"\\u001b[31m"',
    '"nan"', '"5%"', '"auto"', '"0,1"', '"1,2,3"', '"lambda_max.mean > 1"', '"nan:1"', '"json=x.json"', '"cpu"', '"/etc/hostname"', '"٣"', '"½"', '"1e400"', "[" * 40 + "]" * 40,
    '"' + "x" * 5000 + '"', '"\\uD800"', '"../outside/data.npz"', '"d.npz"', "[nan, inf]", '["1", 2, 3.0]', "[1979-05-27]", '"\\u0000"', '" "', '"-"', '["cpu", "cuda"]',
)  # fmt: skip
_KEYS = ("audit", "compare", "bounds", "convert", "tool", "onnxfim", "version", "help", "config", "provider-library", "")
_FILES: dict[str, bytes] = {
    "empty": b"", "zero bytes": b"\0" * 30, "invalid UTF-8": b'seed = "\xff\xfe"', "a mark of its order": b"\xef\xbb\xbfseed = 1", "UTF-16": "seed = 1".encode("utf-16"),
    "deep lists": b"seed = " + b"[" * 20_000 + b"]" * 20_000, "deep tables": b"seed = " + b"{a=" * 3000 + b"1" + b"}" * 3000, "deep keys": b"a" + b".a" * 5000 + b" = 1",
    "a key twice": b"seed = 1\nseed = 2", "a table twice": b"[audit]\nseed = 1\n[audit]\nseed = 2", "no value": b"seed =", "CR": b"seed = 1\rsamples = 2", "JSON": b'{"seed": 1}',
    "LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 12345\n",
    "quotes": b"x = '''" + b'"' * 100, "comment": b"# only", "audit is text": b'audit = "x"', "audit is a list": b"[[audit]]\nseed = 1\n[[audit]]\nseed = 2",
}  # fmt: skip


def case(rng: np.random.Generator, folder: Path) -> Case:
    """Two thirds of the cases are files of odd keys and values, the others no such files."""
    base = bases()[0]
    (folder / "m.onnx").write_bytes(base.content)
    np.savez(folder / "d.npz", inputs=rng.standard_normal((3, 5)).astype(np.float32), labels=np.array([0, 1, 2]))
    name = one(rng, ("onnxfim.toml", "onnxfim.toml", "pyproject.toml", "c.toml"))
    path = folder / name
    command = one(rng, ("audit", "audit", "audit", "compare", "bounds", "convert"))
    if rng.random() < 0.67:
        content, note = _lines(rng, command)
        if name == "pyproject.toml":
            content = (
                one(rng, ("[tool.onnxfim]\n", "[tool.onnxfim]\n", "tool = 1\n", "[tool]\nonnxfim = 1\n", "[[tool.onnxfim]]\n"))
                + content
            )
        path.write_bytes(content.encode("utf-8", "surrogatepass"))
    else:
        note = str(rng.choice([*_FILES, "folder", "pipe", "ring of links", "dangling link", "noise"]))
        if note in _FILES:
            path.write_bytes(_FILES[note])
        elif note == "folder":
            path.mkdir()
        elif note == "pipe":
            os.mkfifo(path)
        elif note == "noise":
            path.write_bytes(rng.bytes(int(rng.integers(1, 200))))
        else:
            path.symlink_to(name if note == "ring of links" else "nowhere.toml")
    given = ("--config", name) if name == "c.toml" or rng.random() < 0.2 else ()
    return Case((*_arguments(command), *given), f"{name}, {note}")


def _arguments(command: str) -> tuple[str, ...]:
    data = ("--data", "d.npz", "--provider", "cpu", "--replay", "0", "--budget", "12")
    return {
        "audit": ("audit", "m.onnx", *data, "-o", "json=a.json", "--no-cache"),
        "compare": ("compare", "m.onnx", "m.onnx", *data, "-o", "json=c.json"),
        "bounds": ("bounds", "m.onnx", "-o", "json=b.json"),
        "convert": ("convert", "missing.json", "-o", "csv=a.csv"),
    }[command]


def _lines(rng: np.random.Generator, command: str) -> tuple[str, str]:
    """Some keys with odd values, at the top or in the command's table."""
    known = [k for k in settable(main.commands[command]) if k not in ("output-file", "html-assets", "cache-dir", "data", "ray")]
    lines = []
    for _ in range(int(one(rng, (1, 1, 1, 2, 3)))):
        odd = rng.random() < 0.15
        key = one(rng, (*_KEYS, *NAMES)) if odd else one(rng, known)
        if odd:
            key = '"' + "".join(f"\\U{ord(c):08x}" for c in key[:50]) + '"'
        elif rng.random() < 0.1:
            key = key.replace("-", "_")
        lines.append(f"{key} = {one(rng, _VALUES)}")
    table = "" if command == "audit" and rng.random() < 0.7 else f"[{command}]\n"
    return table + "\n".join(lines) + "\n", "; ".join(line[:60] for line in lines)
