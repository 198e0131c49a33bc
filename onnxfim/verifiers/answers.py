"""What a verifier said, read from what it printed or wrote: an answer, and a counterexample where it gives one.

Nothing of it is believed: a counterexample is numbers to be tried, whatever else it says.

Source: the rules of VNN-COMP (2021 to 2026) and the VNN-LIB standard's solver interface.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from onnxfim.record.foreign_text import clipped
from onnxfim.record.guarantees import Answer

Array: TypeAlias = np.ndarray[Any, Any]

#: The words that tools answer with.
WORDS: dict[str, Answer] = {
    "sat": "sat", "unsat": "unsat", "unknown": "unknown", "timeout": "timeout", "error": "error",
    "violated": "sat", "holds": "unsat", "timed-out": "timeout", "timed_out": "timeout", "run_instance_timeout": "timeout",
}  # fmt: skip
#: Those that stand for an answer behind a "Result:" alone: elsewhere they are words like others.
LABELLED: dict[str, Answer] = {
    "safe": "unsat", "safe-incomplete": "unsat", "unsafe": "sat", "unsafe-pgd": "sat", "unsafe-bab": "sat", "timed": "timeout",
    "verified": "unsat", "falsified": "sat",
}  # fmt: skip
_TOLD = 160  # letters of what it said that are kept
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")
_VALUE = re.compile(r"\(\s*X_(\d+)\s+([^\s()]+)\s*\)")
_TENSOR = re.compile(r"(?m)^[ \t]*([A-Za-z_]\w*)[ \t]+([A-Za-z_]\w*)[ \t]+\[([\d, ]*)\][ \t]*$")
_PREFIX = re.compile(r"(?i)^\s*(?:result|verdict|status|answer)\s*[:=]\s*")
_WORD = re.compile(r"^[ \t]*([A-Za-z][A-Za-z_-]*)[ \t]*(.*)$")
_BEHIND = re.compile(r"^(?:$|[,(]|[\d.]+\s*s?$|in [\d.]+)")  # an answer: a counterexample, or how long it took


@dataclass(frozen=True)
class Said:
    """What a verifier said of a box.

    Attributes:
        answer: One of the five.
        point: A counterexample's input, float64; None where none was given or it cannot be read.
        note: What else is to be told, in one line.
    """

    answer: Answer
    point: Array | None = None
    note: str = ""


def read_answer(text: str, shape: tuple[int, ...]) -> Said:
    """The answer in a text, which is a line of its own or what stands behind a "Result:", and the counterexample behind it.

    Of several the first counts, but for a text that says both ``sat`` and ``unsat``: it says nothing.

    Args:
        text: What the tool printed, or wrote into its result file; terminal sequences in it are left out.
        shape: Of the input that a counterexample is.
    """
    clean = _ESCAPES.sub("", text)
    found = list(_found(clean))
    if not found:
        told = f"it printed {in_short(clean)!r}" if clean.strip() else "it printed nothing"
        return Said("error", note=f"{told}, expected sat, unsat, unknown or timeout")
    if {"sat", "unsat"} <= {answer for answer, _ in found}:
        return Said("error", note="it said both sat and unsat")
    answer, at = found[0]
    if answer != "sat":
        return Said(answer)
    point, note = _point(clean[at:], math.prod(shape))
    return Said("sat", None if point is None else point.reshape(shape), note)


def in_short(text: str) -> str:
    """A line of foreign text, made visible and cut."""
    return clipped(" ".join(text[: 100 * _TOLD].split()), _TOLD)


def _found(text: str) -> Iterator[tuple[Answer, int]]:
    """The answers in a text, and where the text behind each begins."""
    start = 0
    for line in text.split("\n"):
        label = _PREFIX.match(line)
        begins = label.end() if label else 0
        word = _WORD.match(line[begins:].rstrip(" \t\r."))
        if word is not None:
            name = word.group(1).lower()
            answer = WORDS.get(name) or (LABELLED.get(name) if label else None)
            if answer is not None and (label or _BEHIND.match(word.group(2))):
                yield answer, start + begins + word.end(1)
        start += len(line) + 1


def _point(text: str, numbers: int) -> tuple[Array | None, str]:
    """The input of a counterexample, and why there is none where it cannot be read."""
    pairs = _VALUE.findall(text)
    values: list[float | None]
    if pairs:
        values = [None] * numbers
        for index, value in pairs:
            if int(index[:12]) >= numbers:
                return None, f"its counterexample has a value X_{index[:12]}, but the input has {numbers} numbers"
            values[int(index)] = _float(value)
        missing = sum(v is None for v in values)
        if missing:
            return None, f"its counterexample lacks {missing} of {numbers} numbers"
    else:
        block = _TENSOR.search(text)
        if block is None:
            return None, "it gave no counterexample"
        lines = text[block.end() :].split("\n")[1 : numbers + 1]
        values = [_float(line.strip()) for line in lines]
        if len(values) < numbers or any(v is None for v in values):
            return None, f"its counterexample does not hold {numbers} numbers"
    found = np.array(values, np.float64)
    return found, ""


def _float(text: str) -> float | None:
    try:
        value = float(text[:400])
    except ValueError:
        return None
    return value if math.isfinite(value) else None
