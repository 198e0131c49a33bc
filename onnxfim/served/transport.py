"""One request over HTTP: connections that are kept, TLS, a token, deadlines; no redirect is followed, and no secret is told."""

from __future__ import annotations

import os
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from onnxfim.errors import InputError, SettingsError
from onnxfim.record.foreign_text import clipped
from onnxfim.record.redacting import REDACTED, without_secrets
from onnxfim.served.address import Address, is_here
from onnxfim.served.terms import TOKEN, Reach
from onnxfim.served.trouble import Trouble

_CONNECT = 10.0  # seconds that a connection may take at most
_PIECE = 2**16
_MOST = 2**28  # bytes of an answer
_LONGEST = 300  # letters of what others say


@dataclass(frozen=True)
class Answer:
    """What came back: status, headers by their names in small letters, and the whole body."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def wait(self) -> float | None:
        """Seconds that the server asks to wait (RFC 9110, 10.2.3: a number or a date)."""
        text = self.headers.get("retry-after", "").strip()
        if not text:
            return None
        if text.isdecimal() and len(text) < 10:
            return float(text)
        try:
            return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
        except (ValueError, TypeError, OverflowError):
            return None


class Transport:
    """Sends requests to one server, from any thread.

    Raises:
        InputError: urllib3 is missing. SettingsError: the token or the file of certificates cannot be used.
    """

    def __init__(self, address: Address, reach: Reach) -> None:
        try:
            import urllib3
        except ImportError as error:
            raise InputError(
                f"{address.url}: urllib3 is missing, which asks it. Install it: pip install 'onnxfim[served]'."
            ) from error
        self._address, self._reach, self._urllib3 = address, reach, urllib3
        self._token = _token()
        timeout = urllib3.Timeout(connect=min(_CONNECT, reach.timeout), read=reach.timeout)
        given: dict[str, Any] = {"num_pools": 2, "maxsize": reach.concurrency, "retries": False, "timeout": timeout}
        if address.base.startswith("https://"):
            given["ssl_context"] = _context(reach.ca_file)
        proxy = _proxy(address)
        self._pool = urllib3.PoolManager(**given) if proxy is None else urllib3.ProxyManager(proxy, **given)

    @property
    def has_token(self) -> bool:
        """Whether requests bear a token."""
        return self._token is not None

    def send(self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None) -> Answer:
        """The whole answer to a request, whatever its status.

        Raises:
            Trouble: there is none.
        """
        given = {"Accept-Encoding": "identity", "User-Agent": "onnxfim", **(headers or {})}
        if self._token is not None:
            given["Authorization"] = f"Bearer {self._token}"
        deadline = time.monotonic() + self._reach.timeout
        response: Any = None
        try:
            response = self._pool.request(
                method, self._address.base + path, body=body, headers=given, preload_content=False, redirect=False
            )
            content = self._read(response, deadline)
            found = Answer(response.status, {k.lower(): v for k, v in response.headers.items()}, content)
            response.release_conn()
            response = None
            return found
        except (self._urllib3.exceptions.HTTPError, OSError, ValueError) as error:  # ValueError: a header that is none
            raise self._trouble(error) from None
        finally:
            if response is not None:  # what is left of a broken answer must not be read as the next one
                response.close()

    def _read(self, response: Any, deadline: float) -> bytes:
        parts: list[bytes] = []
        size = 0
        while part := response.read1(_PIECE):
            parts.append(part)
            size += len(part)
            if size > _MOST:
                raise Trouble(f"an answer of over {_MOST:,} bytes", "rows", mends="Give a smaller --batch.")
            if time.monotonic() > deadline:
                raise Trouble(f"no whole answer within {self._reach.timeout:g} s", slow=True)
        return b"".join(parts)

    def _trouble(self, error: BaseException) -> Trouble:
        """What an error of a connection means."""
        e = self._urllib3.exceptions
        text = self.told(_cause(error))
        if isinstance(error, e.SSLError) or _has(error, ssl.SSLCertVerificationError):
            return self._tls(error, text)
        if isinstance(error, e.NameResolutionError):
            return Trouble(f"no address of the host {urlsplit(self._address.base).hostname!r} is known", "none", mends="Check it.")
        if _has(error, ConnectionRefusedError):
            return Trouble("the connection is refused", mends="Is the server running, and is this its port?")
        if isinstance(error, e.ConnectTimeoutError):
            return Trouble(f"no connection within {min(_CONNECT, self._reach.timeout):g} s")
        if isinstance(error, (e.ReadTimeoutError, TimeoutError)):
            return Trouble(f"no answer within {self._reach.timeout:g} s", slow=True)
        if (cut := _found(error, e.IncompleteRead)) is not None and isinstance(getattr(cut, "expected", None), int):
            return Trouble("an answer that was cut off")
        if isinstance(error, (e.IncompleteRead, e.ProtocolError)):
            return Trouble("a connection that broke off before the answer was whole")
        return Trouble(f"a connection that failed ({text})")

    def _tls(self, error: BaseException, text: str) -> Trouble:
        found = _found(error, ssl.SSLCertVerificationError)
        if found is not None:
            why = str(getattr(found, "verify_message", "") or text)
            return Trouble(
                f"the server's certificate is not trusted ({self.told(why)})", "none",
                mends="Give the authority that signed it by --ca-file, and the host's name that it is for.",
            )  # fmt: skip
        if "WRONG_VERSION_NUMBER" in text or "HTTP_REQUEST" in text or "record layer" in text:
            return Trouble("the server does not speak TLS at this port", "none", mends="Write http:// or give another port.")
        return Trouble(f"TLS failed ({text})")

    def told(self, text: str) -> str:
        """What others say, in one line that is made visible, without the token and what else looks like a secret."""
        line = " ".join(text.split())
        if self._token is not None:
            line = line.replace(self._token, REDACTED)
        return clipped(without_secrets(line), _LONGEST)

    def close(self) -> None:
        """Close all connections."""
        self._pool.clear()


def _token() -> str | None:
    """The token of the environment.

    Raises:
        SettingsError: no header can hold it.
    """
    token = os.environ.get(TOKEN, "").strip()
    if token and not (token.isascii() and token.isprintable() and " " not in token):
        raise SettingsError(f"{TOKEN}: holds a space or a character that no header takes, expected the token alone. Set it anew.")
    return token or None


def _context(ca_file: str | None) -> ssl.SSLContext:
    """TLS as Python's defaults have it, with one's own authorities where they are given.

    Raises:
        SettingsError: the file holds none.
    """
    try:
        return ssl.create_default_context(cafile=ca_file)
    except (OSError, ssl.SSLError) as error:
        why = error.strerror if isinstance(error, OSError) and not isinstance(error, ssl.SSLError) else "it holds none"
        raise SettingsError(
            f"--ca-file {ca_file}: gives no certificates ({why}), expected a PEM file of authorities. Check it."
        ) from None


def _proxy(address: Address) -> str | None:
    """The proxy that the environment names for the address; none for this machine."""
    parts = urlsplit(address.base)
    host = parts.hostname or ""
    if is_here(host) or proxy_bypass(host):
        return None
    return getproxies().get(parts.scheme)


def _cause(error: BaseException) -> str:
    """What an error of urllib3 says, without the pool's name."""
    text = str(error)
    return text.rpartition("): ")[2] if "HTTPConnectionPool" in text or "HTTPSConnectionPool" in text else text


def _found(error: BaseException | None, kind: type[BaseException]) -> BaseException | None:
    """An error of a kind among what an error was raised from."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, kind):
            return error
        inner = [a for a in error.args if isinstance(a, BaseException)]
        error = inner[0] if inner else error.__cause__ or error.__context__
    return None


def _has(error: BaseException, kind: type[BaseException]) -> bool:
    return _found(error, kind) is not None


def refusal(answer: Answer, said: str, transport: Transport) -> Trouble:
    """What a status that is no success means.

    Args:
        answer: The answer.
        said: What it says of itself.
        transport: Who got it.
    """
    status, told = answer.status, transport.told(said)
    means = f"HTTP {status}" + (f", {told}" if told else "")
    if status in (401, 403):
        held = f"{TOKEN} is not taken" if transport.has_token else f"{TOKEN} is not set"
        return Trouble(f"access is refused ({means}; {held})", "none", mends="Set it to a token that this model takes.")
    if 300 <= status < 400:
        to = transport.told(answer.headers.get("location", "elsewhere"))
        return Trouble(f"it answers from elsewhere (HTTP {status}, {to})", "none", mends="Give that address, where you trust it.")
    if status == 429 or status in (408, 425, 502, 503, 504):
        return Trouble(means, wait=answer.wait, slow=status == 504)
    if status in (400, 413, 422, 500):  # 500 is whatever fails there
        return Trouble(means, "rows", tries=3 if status == 500 else 1)
    if status >= 500:
        return Trouble(means, wait=answer.wait)
    return Trouble(means, "none")


__all__ = ["Answer", "Transport", "refusal"]
