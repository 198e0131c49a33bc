"""What became of what a signal, the time limit or missing shards ended; alone, for a command needs it from its first moment on."""

from __future__ import annotations

_ENDED = {"SIGINT": "interrupted", "SIGTERM": "terminated", "missing shards": "shards missing"}


def ended_words(by: str | None) -> str:
    """What became of what a signal of this name, or another of `Run.interrupted_by`, ended."""
    return _ENDED.get(by or "SIGINT", f"ended by {by}")
