"""The code in the documentation, block by block."""

from __future__ import annotations

import re
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path

from tests.support.places import ROOT, SAMPLES

_BLOCK = re.compile(
    r"(?:^<!-- needs: (?P<needs>[^\n]*) -->\n+)?^(?P<indent> *)```(?P<language>\w+)[^\n]*\n(?P<text>.*?)^ *```",
    re.DOTALL | re.MULTILINE,
)


@dataclass(frozen=True)
class Block:
    """A block of code; ``needs`` is what a comment before it says that it needs more than a test has, empty where there is none."""

    language: str
    text: str
    needs: str = ""


def blocks_of(page: str) -> list[Block]:
    """The fenced blocks of a page with a language, in their order."""
    text = (ROOT / page).read_text("utf-8")
    return [Block(m["language"], m["text"], m["needs"] or "") for m in _BLOCK.finditer(text)]


def commands_in(blocks: list[Block]) -> list[list[str]]:
    """The words after `onnxfim` of each of its commands, in order; installing and testing is the reader's and the host's part."""
    text = "\n".join(b.text for b in blocks if b.language in ("sh", "bash", "console", "shell")).replace("\\\n", " ")
    parts = [part.strip().removeprefix("$ ") for line in text.splitlines() for part in line.split("&&")]
    found = [shlex.split(part, comments=True)[1:] for part in parts if part.startswith("onnxfim ")]
    # Where the output goes is the shell's part.
    return [words[: next((i for i, w in enumerate(words) if w in ("|", ">", "2>")), len(words))] for words in found]


def sample_folder(folder: Path) -> Path:
    """``folder`` with the sample models, under their own names and those that the pages use."""
    for file in (*SAMPLES.glob("*.onnx"), SAMPLES / "digits.npz"):
        shutil.copy(file, folder)
    shutil.copytree(SAMPLES, folder / "sample_models", ignore=shutil.ignore_patterns("*.py", "*.png"))
    shutil.copy(SAMPLES / "digits_mlp.onnx", folder / "model.onnx")
    shutil.copy(SAMPLES / "digits.npz", folder / "samples.npz")
    return folder


def pages() -> list[str]:
    """Every page of the documentation, from the root."""
    return ["README.md", *(p.relative_to(ROOT).as_posix() for p in sorted((ROOT / "docs").rglob("*.md")))]
