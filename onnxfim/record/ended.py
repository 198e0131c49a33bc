"""What became of what a signal, or the time limit, ended; alone, for a command looks for signals from its first moment on."""

from __future__ import annotations

_ENDED = {"SIGINT": "interrupted", "SIGTERM": "terminated"}


def ended_words(by: str | None) -> str:
    """What became of what a signal of this name, or the time limit, ended."""
    return _ENDED.get(by or "SIGINT", f"ended by {by}")
