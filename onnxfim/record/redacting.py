"""Words that may hold a secret, without it: passwords in addresses, values of what is called a key, well-known tokens."""

from __future__ import annotations

import re
from collections.abc import Iterable

#: What stands in the place of a secret.
REDACTED = "[redacted]"

# Words of a name that tells of a secret, and ends of names written in one word.
_SECRET = frozenset(
    ("auth", "authorization", "bearer", "cookie", "credential", "credentials", "key", "keys", "pass", "passphrase", "passwd",
     "password", "pat", "pwd", "secret", "secrets", "sas", "sig", "signature", "token")
)  # fmt: skip
_ENDS = ("apikey", "accesskey", "secret", "password", "passwd", "passphrase", "token", "credentials")
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|[0-9]+")
# Options whose name has such a word, and whose value is a name.
_NO_SECRET = frozenset({"inputs-key", "labels-key"})
# Options whose pairs begin with the name of a model's input: ``token_type_ids=zeros`` is no secret.
_OF_INPUTS = frozenset({"feed", "shape"})
# None of these takes longer than the text is long: each begins where no other of its kind can go on.
_USER = re.compile(r"(?P<scheme>(?<![A-Za-z0-9+.-])[A-Za-z][A-Za-z0-9+.-]*://)[^/?#\s@]+@")
_QUERY = re.compile(r"(?P<name>[?&;](?P<word>[^=?&;#\s]+)=)[^&;#\s]+")
_KNOWN = re.compile(
    r"(?<![A-Za-z0-9])(gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|glpat-[\w-]{15,}|hf_[A-Za-z0-9]{20,}|xox[abeprs]-[\w-]{10,}"
    r"|(AKIA|ASIA)[0-9A-Z]{16}|sk-[\w-]{20,}|AIza[\w-]{30,}|npm_[A-Za-z0-9]{30,}|pypi-[\w-]{40,}"
    r"|eyJ[\w-]{8,2000}\.[\w-]{8,4000}\.[\w-]*)"
)
_BEARER = re.compile(r"(?i)\b(?P<how>bearer|basic)\s+[A-Za-z0-9._~+/=-]{8,}")
_PAIR = re.compile(r"(?P<name>[A-Za-z_][\w.:-]*)=(?P<value>.+)", re.DOTALL)


def names_a_secret(name: str) -> bool:
    """Whether a name says that its value is secret: ``HF_TOKEN``, ``api-key``, ``dbPassword``."""
    words = [w.lower() for w in _WORD.findall(name)]
    return any(w in _SECRET for w in words) or "".join(words).endswith(_ENDS)


def without_secrets(text: str) -> str:
    """A text without what looks like a password in an address, or a token."""
    text = _USER.sub(rf"\g<scheme>{REDACTED}@", text)
    text = _QUERY.sub(lambda m: f"{m['name']}{REDACTED}" if names_a_secret(m["word"]) else m[0], text)
    return _BEARER.sub(rf"\g<how> {REDACTED}", _KNOWN.sub(REDACTED, text))


def value_without_secrets(name: str, value: str) -> str:
    """A value of that name: nothing of it where the name says that it is secret."""
    return REDACTED if value and names_a_secret(name) else without_secrets(value)


def pairs_without_secrets(pairs: Iterable[str]) -> tuple[str, ...]:
    """``NAME=VALUE`` texts, such as a provider's options, without the values that their names or they themselves tell as secret."""
    return tuple(_word(pair) for pair in pairs)


def words_without_secrets(words: Iterable[str]) -> tuple[str, ...]:
    """The words of a command without their secrets; they stay as many.

    Of ``--NAME VALUE``, ``--NAME=VALUE`` and ``NAME=VALUE`` the value goes where the name says that it is secret.
    """
    found: list[str] = []
    option = ""
    for word in words:
        if option and not word.startswith("-"):
            secret = _secret_option(option)
            found.append(REDACTED if secret else without_secrets(word) if option in _OF_INPUTS else _word(word))
            option = ""
            continue
        option = word.removeprefix("--") if word.startswith("--") and "=" not in word else ""
        found.append(_word(word))
    return tuple(found)


def _word(word: str) -> str:
    head = "--" if word.startswith("--") else ""
    pair = _PAIR.fullmatch(word[len(head) :])
    if pair is None:
        return without_secrets(word)
    name, value = pair["name"], pair["value"]
    if _secret_option(name):
        return f"{head}{name}={REDACTED}"
    return f"{head}{name}={_word(value) if head and name not in _OF_INPUTS else without_secrets(value)}"


def _secret_option(name: str) -> bool:
    return name not in _NO_SECRET and names_a_secret(name)
