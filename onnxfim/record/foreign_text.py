"""Foreign text made visible: nothing in a name steers a terminal, hides, or turns the direction of what stands around it."""

from __future__ import annotations

import re

# What steers or is seen by nobody: controls (ESC, C1, tabs, line ends), line and paragraph separators, marks that turn the
# direction of text, format characters and fillers that print as nothing, lone surrogates, noncharacters of the basic plane.
_HIDDEN = (
    "\x00-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\u2800\u3164"
    "\ud800-\udfff\ufeff\uffa0\ufff0-\ufffb\ufffe\uffff\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e00ff\U000e01f0-\U000e0fff"
)
_JOINERS = "\u200c\u200d"  # emoji and several scripts are written with them
_SELECTORS = "\ufe00-\ufe0f\U000e0100-\U000e01ef"  # the form of the character before them
_SEEN = f"[^\x00-\x7f{_HIDDEN}{_JOINERS}{_SELECTORS}]"  # a character beside which a joiner or a selector has a meaning
_FLAG = "\U0001f3f4[\U000e0030-\U000e007a]{3,6}\U000e007f"  # of a region, such as Scotland's
_STEERS = re.compile(
    f"(?P<flag>{_FLAG})|[{_HIDDEN}]|(?<!{_SEEN})(?<!{_SEEN}[{_SELECTORS}])[{_JOINERS}]|[{_JOINERS}](?!{_SEEN})"
    f"|(?<!{_SEEN})[{_SELECTORS}](?!\u20e3)"
)


def visible(text: str) -> str:
    r"""Foreign text with every character that steers or hides spelled out (``\u001b``, ``\u202e``); other text stays as it is.

    What is visible already does not change, so it does no harm twice. Joiners and variation selectors stay where they shape a
    character beyond ASCII.
    """
    return text if text.isascii() and text.isprintable() else _STEERS.sub(_spelled, text)


def _spelled(found: re.Match[str]) -> str:
    return found[0] if found["flag"] else escaped(found[0])


def escaped(text: str) -> str:
    r"""Every character spelled by its code: ``\u03bb``, ``\U000e0041``."""
    return "".join(f"\\u{ord(c):04x}" if ord(c) < 0x10000 else f"\\U{ord(c):08x}" for c in text)


def clipped(text: str, most: int) -> str:
    """Foreign text made visible, in at most ``most`` characters; the rest of a long one is never looked at."""
    shown = visible(text[: most + 1])  # making it visible shortens nothing, so no more of it is needed
    return shown if len(shown) <= most else shown[: most - 1] + "…"


def one_line(text: str) -> str:
    """Foreign text of several lines on one, made visible."""
    return visible(" ".join(text.split()))
