"""Relations such as ``lambda_max.mean < 5`` that an audit must fulfil: gates, said the other way round."""

from __future__ import annotations

from dataclasses import replace

from onnxfim.errors import SettingsError
from onnxfim.record.audit import Audit
from onnxfim.record.decision import GateResult, Operator
from onnxfim.verdict.gates import Gate, decide, parse_gate

_OPPOSITE: dict[str, Operator] = {"<": ">=", "<=": ">", ">": "<=", ">=": "<"}


def required(relation: str) -> Gate:
    """The gate that fails where ``relation`` does not hold.

    Raises:
        SettingsError: not of the form ``NAME OPERATOR NUMBER``, or no such name.
    """
    gate = parse_gate(relation)
    if gate.operator not in relation:
        raise SettingsError(f"{relation!r}: does not say what must hold. Give an operator and a number, such as '{gate.name} < 1'.")
    return replace(gate, operator=_OPPOSITE[gate.operator])


def expect(audit: Audit, relation: str) -> GateResult:
    """Whether ``relation`` holds on the whole 95 % interval (``pass``), nowhere in it (``fail``), or neither.

    Args:
        audit: What was measured.
        relation: ``NAME OPERATOR NUMBER`` with the names of gates: ``lambda_max.p95 < 12.5``, ``clean_accuracy >= 90%``.

    Raises:
        SettingsError: not of that form, or no such name.
    """
    return decide(audit, (required(relation),))[0]
