"""Who answers rows: a served model over HTTP, or a function that reaches one in its own way."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np

from onnxfim.errors import in_one_line
from onnxfim.record.foreign_text import clipped
from onnxfim.record.redacting import without_secrets
from onnxfim.served.address import Address
from onnxfim.served.protocol import HEADER, Expected, Wire, answer_of, request_of, said_in
from onnxfim.served.transport import Transport, refusal
from onnxfim.served.trouble import Trouble

Array: TypeAlias = np.ndarray[Any, Any]

#: Errors of a function that say that it is wrong, and not what it reaches.
_WRONG = (TypeError, NameError, AttributeError, ImportError, SyntaxError, AssertionError, NotImplementedError)


@dataclass(frozen=True)
class Answered:
    """The output of some rows, as it lies, and the bytes that travelled for it."""

    values: Array
    sent: int
    received: int


class Asker(Protocol):
    """Answers one batch of rows; called from several threads."""

    def ask(self, rows: Array) -> Answered:
        """The output of rows (B, *shape).

        Raises:
            Trouble: there is none.
        """

    def close(self) -> None:
        """Let connections go."""


class HttpAsker:
    """Asks a model that is served over KServe v2.

    Args:
        transport: Who sends.
        address: Where.
        into, output: Names of input and output; None for the only output.
        shape: Sizes of the output that are known, the batch's among them.
        batch_axis: Axis of the batch in it.
        wire: How numbers travel.
    """

    def __init__(
        self, transport: Transport, address: Address, into: str, output: str | None, shape: tuple[int | None, ...] | None,
        batch_axis: int, wire: Wire,
    ) -> None:  # fmt: skip
        self._transport, self._address = transport, address
        self._into, self._output, self._shape, self._axis, self._wire = into, output, shape, batch_axis, wire
        self._numbers = itertools.count(1)

    def ask(self, rows: Array) -> Answered:
        number = f"onnxfim-{next(self._numbers)}"
        request = request_of(np.ascontiguousarray(rows), self._into, self._output, number, self._wire)
        answer = self._transport.send("POST", f"{self._address.path}/infer", request.body, request.headers)
        if answer.status != 200:
            raise refusal(answer, said_in(answer.body), self._transport)
        expected = Expected(number, len(rows), self._output, self._shape, self._axis)
        try:
            values = answer_of(answer.body, answer.headers.get(HEADER.lower()), expected)
        except Trouble as trouble:
            trouble.said = self._transport.told(trouble.said)  # a server may repeat the token
            raise
        return Answered(values, len(request.body), len(answer.body))

    def close(self) -> None:
        self._transport.close()


class FunctionAsker:
    """Asks a function of a batch, ``(B, *shape) -> (B, K)``, that was named on the command line."""

    def __init__(self, function: Callable[[Array], Any], name: str, batch_axis: int = 0) -> None:
        self._function, self._name, self._axis = function, name, batch_axis

    def ask(self, rows: Array) -> Answered:
        try:
            found = self._function(rows)
        except Exception as error:
            said = clipped(without_secrets(in_one_line(error)), 300)
            told = f"{type(error).__name__}{_line(error)}{f': {said}' if said else ''}"
            if isinstance(error, _WRONG):
                raise Trouble(
                    f"{told}, expected outputs for rows of shape {rows.shape}", "none", mends="Mend the function."
                ) from error
            raise Trouble(told, "rows" if isinstance(error, ValueError) else "again") from error
        try:
            values = np.asarray(found)
            good = values.dtype.kind in "fiub"
        except Exception as error:
            raise Trouble(f"something of type {type(found).__name__}, expected an array", "none", mends="Return one.") from error
        if not good or values.ndim < 2 or values.shape[self._axis] != len(rows):
            kind = f"shape {values.shape}" if good else f"type {values.dtype}"
            raise Trouble(
                f"an array of {kind} for {len(rows)} rows, expected ({len(rows)}, K) numbers", "none", mends="Mend the function."
            )
        return Answered(values.astype(np.float64), rows.nbytes, values.nbytes)

    def close(self) -> None:
        """A function holds no connections that are known here."""


def _line(error: BaseException) -> str:
    """Where in the user's own file an error was raised."""
    trace = error.__traceback__
    trace = trace.tb_next if trace is not None and trace.tb_next is not None else None  # the first is the call here
    return "" if trace is None else f" in line {trace.tb_lineno}"
