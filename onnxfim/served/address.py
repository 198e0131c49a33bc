"""Addresses of served models: ``http://HOST:PORT/v2/models/NAME``, of which no credentials are a part."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import SplitResult, unquote, urlsplit

from onnxfim.errors import ModelError
from onnxfim.record.foreign_text import visible

_FORM = "http://HOST:PORT/v2/models/NAME"
_PATH = re.compile(r"(?P<before>.*)/v2/models/(?P<name>[^/]+)(?:/versions/(?P<version>[^/]+))?(?:/(?:infer|ready))?/?")


@dataclass(frozen=True)
class Address:
    """Where a model is served.

    Attributes:
        base: Scheme, host, port and what stands in the path before ``/v2``.
        name: The model's name, as its letters are.
        version: The version that is asked for, or None for the server's choice.
        path: ``/v2/models/NAME`` or ``/v2/models/NAME/versions/VERSION``, as it is sent.
    """

    base: str
    name: str
    version: str | None
    path: str

    @property
    def url(self) -> str:
        """The whole address."""
        return self.base + self.path

    @property
    def secure(self) -> bool:
        """Whether nobody on the way reads what is sent: HTTPS, or this machine alone."""
        return self.base.startswith("https://") or is_here(urlsplit(self.base).hostname or "")


def names_address(model: object) -> bool:
    """Whether a model is named by an address, and not by a file."""
    return isinstance(model, str) and re.match(r"(?i)https?://", model) is not None


def is_here(host: str) -> bool:
    """Whether a host is this machine."""
    return host in ("localhost", "::1") or re.fullmatch(r"127(\.\d{1,3}){3}", host) is not None


def address_of(text: str) -> Address:
    """The address that a text holds.

    Raises:
        ModelError: it holds credentials or a query, or is no address of a model; in one line, without them.
    """
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise ModelError(f"{_shown(text)}: is no address ({error}), expected {_FORM}. Check it.") from None
    if parts.username is not None or parts.password is not None:
        raise ModelError(
            f"{_shown(text)}: holds credentials, which lists of processes and histories of shells show, expected none. Put a token "
            "into the variable ONNXFIM_SERVED_TOKEN."
        )
    if parts.query or parts.fragment:
        raise ModelError(f"{_shown(text)}: holds a query or a fragment behind the model's name, expected {_FORM}. Leave it out.")
    found = _PATH.fullmatch(parts.path)
    if not parts.hostname or found is None or not text.isascii() or not text.isprintable() or " " in text:
        raise ModelError(
            f"{_shown(text)}: is no address of a model, expected {_FORM} (KServe v2, Triton). Another protocol is audited by "
            "--predict MODULE:FUNCTION."
        )
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    base = f"{parts.scheme.lower()}://{host}{'' if port is None else f':{port}'}{found['before']}"
    version = found["version"]
    path = f"/v2/models/{found['name']}" + ("" if version is None else f"/versions/{version}")
    return Address(base, unquote(found["name"]), None if version is None else unquote(version), path)


def _shown(text: str) -> str:
    """An address as a message shows it: without what may be secret in it."""
    try:
        parts = urlsplit(text)
        host = parts.netloc.rpartition("@")[2]
        return visible(SplitResult(parts.scheme, host, parts.path, "", "").geturl())
    except ValueError:
        return visible(text.partition("://")[0]) + "://…"
