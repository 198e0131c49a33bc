"""A served model as it was found: what the server tells of it, and who asks it."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from onnxfim.errors import InputError, ModelError
from onnxfim.record.foreign_text import clipped
from onnxfim.record.served import Served
from onnxfim.record.settings import shape_given
from onnxfim.runtime.failures import ProviderFailed
from onnxfim.served.address import Address, address_of
from onnxfim.served.asking import Asker, HttpAsker
from onnxfim.served.pace import MOST_ASKED, Pace
from onnxfim.served.protocol import BINARY, Metadata, Tensor, Wire, element, read_metadata, said_in
from onnxfim.served.terms import SERVED, Reach
from onnxfim.served.transport import Answer, Transport, refusal
from onnxfim.served.trouble import Trouble

Array: TypeAlias = np.ndarray[Any, Any]

_FEW = 8  # names that a message lists
_PAGES = 2  # answers in place of metadata after which there are none
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Endpoint:
    """A model that is asked over a wire.

    Attributes:
        served: What the record tells of it.
        reach: How it is asked.
        input, output: Names of what is perturbed and what is read; an output of None is the only one.
        input_shape: Shape of one sample, None for sizes that are open.
        dtype: Element type of the input.
        opens: Makes who asks it, for a batch on this axis of the output.
        most_rows: Rows of a request at most, where the server says so.
        fixed: Rows that every request must have, or None.
    """

    served: Served
    reach: Reach
    input: str
    output: str | None
    input_shape: tuple[int | None, ...]
    dtype: np.dtype[Any]
    opens: Callable[[int], Asker]
    most_rows: int | None = None
    fixed: int | None = None

    def once(self, rows: Array) -> Array:
        """The answer to rows in one request, as a function of a batch."""
        asker = self.opens(0)
        try:
            return asker.ask(rows.astype(self.dtype)).values
        finally:
            asker.close()


def endpoint_at(
    url: str, reach: Reach, *, input_name: str | None = None, output_name: str | None = None, shapes: Sequence[str] = ()
) -> Endpoint:
    """The model that is served at an address, from what its server tells.

    Args:
        url: ``http(s)://HOST:PORT/v2/models/NAME``, with ``/versions/VERSION`` where one is meant.
        reach: How it is asked.
        input_name, output_name: Names, where there are several.
        shapes: ``NAME:[N,SIZE,…]`` of an input whose metadata leave sizes open.

    Raises:
        ModelError, InputError, ProviderError, SettingsError: what does not fit, in one line, without any secret.
    """
    address = address_of(url)
    transport = Transport(address, reach)
    if transport.has_token and not address.secure:
        _log.warning("%s: the token travels where others can read it; use https://", address.url)
    asked = _Inquiry(transport, address, reach)
    try:
        metadata = asked.metadata()
        server, extensions = asked.server()
        most = asked.most_rows()
    finally:
        transport.close()
    wire: Wire = "binary" if BINARY in extensions else "JSON"
    into = _input(metadata, address, input_name, shapes)
    out = _output(metadata, address, output_name)
    dtype = element(into.datatype)
    if dtype is None:
        raise InputError(
            f"{address.url}: input {into.name!r} takes {clipped(into.datatype, 20)}, expected floats (FP32, FP64, FP16): whole "
            "numbers have no slope. Serve the part of the model behind its embedding or first float value."
        )
    fixed = into.shape[0] if most is None else None
    version = address.version or ", ".join(metadata.versions) or None
    served = Served(address.url, metadata.name, version, metadata.platform, server, metadata.sha256, wire)

    def opens(batch_axis: int) -> Asker:
        shape = None if out is None or batch_axis >= len(out.shape) else out.shape
        return HttpAsker(
            Transport(address, reach), address, into.name, None if out is None else out.name, shape, batch_axis, wire
        )  # fmt: skip

    return Endpoint(
        served, reach, into.name, None if out is None else out.name, into.shape[1:], dtype, opens, most_rows=most, fixed=fixed
    )


class _Inquiry:
    """A server that is asked about a model, as patiently as for its answers."""

    def __init__(self, transport: Transport, address: Address, reach: Reach) -> None:
        import threading

        self._transport, self._address, self._reach = transport, address, reach
        self._pace = Pace(reach.max_qps, threading.Event())

    def metadata(self) -> Metadata:
        """What it tells of the model.

        Raises:
            ModelError: there is no such model, or no such server. ProviderFailed: it does not answer.
        """
        where = self._address.url
        for left in range(min(_PAGES, self._reach.retries), -1, -1):
            answer = self._got("GET", self._address.path)
            if answer.status != 200:
                break
            try:
                return read_metadata(answer.body, where)
            except ModelError:  # a gateway's page, perhaps, for a moment
                if not left:
                    raise
                self._pace.back_off(0)
        known = self._models()
        missing = answer.status == 404 or (known is not None and self._address.name not in known)
        if not missing:
            raise _failed(where, refusal(answer, said_in(answer.body), self._transport))
        if known is None and self._answer_of_server() is None:
            raise ModelError(
                f"{where}: HTTP {answer.status}, and no server of KServe v2 answers at {self._address.base}/v2, expected one. "
                "Check the address; another protocol is audited by --predict MODULE:FUNCTION."
            )
        told = "" if known is None else f" (it has {clipped(', '.join(known[:_FEW]), 300) or 'none'}{', …' * (len(known) > _FEW)})"
        version = "" if self._address.version is None else f" in version {self._address.version!r}"
        raise ModelError(f"{where}: the server has no model {self._address.name!r}{version}{told}. Check the name.")

    def server(self) -> tuple[str | None, tuple[str, ...]]:
        """Name and version of the server, where it tells them, and the extensions that it names."""
        told = self._answer_of_server()
        if told is None:
            return None, ()
        name = " ".join(str(told[key]) for key in ("name", "version") if told.get(key))
        extensions = told.get("extensions")
        return clipped(name, 100) or None, tuple(map(str, extensions)) if isinstance(extensions, list) else ()

    def most_rows(self) -> int | None:
        """Rows of a request at most, as Triton's model configuration has them; None where nothing tells it."""
        told = self._json("GET", f"{self._address.path}/config")
        most = told.get("max_batch_size") if told is not None else None
        return most if type(most) is int and most > 0 else None

    def _answer_of_server(self) -> dict[str, Any] | None:
        told = self._json("GET", "/v2")
        return told if told is not None and "name" in told else None

    def _models(self) -> list[str] | None:
        """Names of the models that the server has; None where it does not tell them."""
        try:
            answer = self._got("POST", "/v2/repository/index", b"{}", {"Content-Type": "application/json"})
            found = json.loads(answer.body) if answer.status == 200 else None
        except (ProviderFailed, ValueError, RecursionError):
            return None
        return [str(m.get("name")) for m in found if isinstance(m, dict)] if isinstance(found, list) else None

    def _json(self, method: str, path: str) -> dict[str, Any] | None:
        """An answer as JSON; None where there is none."""
        try:
            answer = self._got(method, path)
            found = json.loads(answer.body) if answer.status == 200 else None
        except (ProviderFailed, ValueError, RecursionError):
            return None
        return found if isinstance(found, dict) else None

    def _got(self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> Answer:
        """The answer to a question, asked again where that may help; of JSON that is cut off as well.

        Raises:
            ProviderFailed: there is none.
        """
        tries = 0
        while True:
            self._pace.turn()
            try:
                answer = self._transport.send(method, path, body, headers)
                if answer.status == 200:
                    _whole(answer.body)
                again = refusal(answer, said_in(answer.body), self._transport) if answer.status != 200 else None
                if again is None or again.remedy != "again":
                    return answer
                raise again
            except Trouble as trouble:
                tries += 1
                if trouble.remedy != "again" or tries > self._reach.retries or (trouble.wait or 0.0) > MOST_ASKED:
                    raise _failed(self._address.url, trouble) from None
                if trouble.wait is not None:
                    self._pace.hold(trouble.wait)
                else:
                    self._pace.back_off(tries - 1)


def _whole(content: bytes) -> None:
    """Raise where an answer begins as JSON and is none to its end."""
    if content.lstrip()[:1] in (b"{", b"["):
        try:
            json.loads(content)
        except (ValueError, RecursionError):
            raise Trouble("an answer that is no JSON") from None


def _failed(where: str, trouble: Trouble) -> ProviderFailed:
    mends = trouble.mends or "See whether it is up, and whether this is its address."
    return ProviderFailed(f"{where}: {trouble.said}. {mends}", SERVED)


def _input(metadata: Metadata, address: Address, name: str | None, shapes: Sequence[str]) -> Tensor:
    """The input that is perturbed, its shape with the sizes that were given."""
    given = dict(told for text in shapes if (told := shape_given(text)) is not None)
    known = {t.name: t for t in metadata.inputs}
    if not known:
        if name is None or name not in given:
            raise InputError(
                f"{address.url}: its metadata name no input, expected one. Say which by --input NAME --shape 'NAME:[N,SIZE,…]'."
            )
        return Tensor(name, "FP32", (None, *given[name][1:]))
    names = clipped(", ".join(map(repr, known)), 300)
    if name is not None and name not in known:
        raise InputError(f"{address.url}: has no input {name!r} (it has {names}). Name one of them by --input.")
    if len(known) > 1:
        raise InputError(
            f"{address.url}: takes {len(known)} inputs ({names}), expected one: what is served is audited at its only input. Serve "
            "a copy whose other inputs are constants, or use --predict MODULE:FUNCTION."
        )
    found = next(iter(known.values()))
    unknown = sorted(set(given) - {found.name})
    if unknown:
        raise InputError(f"--shape {unknown[0]}: the model has no such input (it has {names}). Name it as it is served.")
    if found.name not in given:
        if len(found.shape) < 2:
            raise InputError(
                f"{address.url}: input {found.name!r} has shape {_sizes(found.shape)}, expected a batch and the sizes of a sample. "
                f"Say --shape '{found.name}:[N,SIZE,…]'."
            )
        return found
    sizes = given[found.name]
    fits = len(sizes) == len(found.shape) and all(a in (None, b) for a, b in zip(found.shape[1:], sizes[1:], strict=True))
    if len(found.shape) >= 2 and not fits:
        raise InputError(
            f"--shape {found.name}: {_sizes(sizes)}, but it is served with {_sizes(found.shape)}. Give sizes that fit."
        )
    return Tensor(found.name, found.datatype, sizes)


def _output(metadata: Metadata, address: Address, name: str | None) -> Tensor | None:
    """The output that is read: as named, or the only one of floats; None where the metadata name none."""
    known = {t.name: t for t in metadata.outputs}
    if not known:
        return None if name is None else Tensor(name, "FP32", ())
    names = clipped(", ".join(f"{t.name!r} {t.datatype}" for t in known.values()), 300)
    if name is not None:
        if name not in known:
            raise ModelError(f"{address.url}: has no output {name!r} (it has {names}). Name one of them by --output.")
        return known[name]
    floats = [t for t in known.values() if element(t.datatype) is not None]
    if len(floats) != 1:
        raise ModelError(f"{address.url}: has {len(floats)} outputs of floats ({names}), expected one. Name it by --output.")
    return floats[0]


def _sizes(shape: Sequence[int | None]) -> str:
    return "[" + ",".join("N" if i == 0 and n is None else "?" if n is None else str(n) for i, n in enumerate(shape)) + "]"


__all__ = ["Endpoint", "endpoint_at"]
