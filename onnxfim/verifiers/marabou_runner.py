"""Runs Marabou on one property by its Python interface, and writes the answer as VNN-COMP asks: a program of its own.

The property is asked class by class: a rival at a time, each with its share of the time that is left.
"""

from __future__ import annotations

import re
import sys
import time
import warnings
from pathlib import Path
from typing import Any

_DECLARED = re.compile(r"\(declare-const\s+([XY])_(\d+)\s+Real\)")
_BOUND = re.compile(r"\((<=|>=)\s+([XY])_(\d+)\s+(?:([XY])_(\d+)|([-+0-9.eE]+))\s*\)")


def _read(text: str) -> tuple[list[list[float]], list[tuple[str, int, int | None, float]]]:
    """The box, (d, 2), and the ways to another prediction: each an operator, an output, another output or None, and a number."""
    size = 1 + max(int(i) for letter, i in _DECLARED.findall(text) if letter == "X")
    box: list[list[float]] = [[-float("inf"), float("inf")] for _ in range(size)]
    ways = []
    for relation, letter, i, other, j, value in _BOUND.findall(text):
        if letter == "X":
            box[int(i)][0 if relation == ">=" else 1] = float(value)
        else:
            ways.append((relation, int(i), int(j) if other else None, float(value or 0.0)))
    return box, ways


def _solved(onnx: str, box: list[list[float]], way: tuple[str, int, int | None, float], seconds: float) -> tuple[str, list[float]]:
    """What Marabou says of one way, and the point where it found one."""
    from maraboupy import Marabou, MarabouCore, MarabouUtils

    network: Any = Marabou.read_onnx(onnx)
    x, y = (values[0].flatten().tolist() for values in (network.inputVars, network.outputVars))
    for variable, (low, high) in zip(x, box, strict=True):
        network.setLowerBound(variable, low)
        network.setUpperBound(variable, high)
    relation, i, j, value = way
    equation = MarabouUtils.Equation(MarabouCore.Equation.GE if relation == ">=" else MarabouCore.Equation.LE)
    equation.addAddend(1.0, y[i])
    if j is not None:
        equation.addAddend(-1.0, y[j])
    equation.setScalar(value)
    network.addEquation(equation)
    code, values, _ = network.solve(
        verbose=False, options=Marabou.createOptions(verbosity=0, timeoutInSeconds=max(1, int(seconds)))
    )  # fmt: skip
    return code.lower(), [values[v] for v in x] if code.lower() == "sat" else []


def main(arguments: list[str]) -> None:
    """Ask about the network and the property, and write the answer.

    Args:
        arguments: The network's file, the property's, seconds, and the file for the answer.
    """
    warnings.simplefilter("ignore")
    onnx, vnnlib, seconds, result = arguments
    until = time.monotonic() + float(seconds)
    box, ways = _read(Path(vnnlib).read_text(encoding="ascii"))
    answer, point = "unsat", list[float]()
    for done, way in enumerate(ways):
        left = until - time.monotonic()
        if left <= 0:
            answer = "timeout"
            break
        said, point = _solved(onnx, box, way, left / (len(ways) - done) if answer == "unsat" else left)
        if said == "sat":
            answer = "sat"
            break
        if said != "unsat":
            answer = "timeout" if said == "timeout" else "unknown"
    told = [answer]
    if answer == "sat":
        told += [f"({'(' if k == 0 else ' '}X_{k} {value!r}){')' if k == len(point) - 1 else ''}" for k, value in enumerate(point)]
    Path(result).write_text("\n".join(told) + "\n", encoding="ascii")


if __name__ == "__main__":
    main(sys.argv[1:])
