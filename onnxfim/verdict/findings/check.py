"""What a check is: what it looks for, what it says where it finds it, and when it cannot be made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from onnxfim.record.audit import Audit
from onnxfim.record.decision import Finding, Level


def never(_: Audit) -> None:
    """The obstacle of a check that every audit makes."""


@dataclass(frozen=True)
class Check:
    """One check of a finished audit.

    Attributes:
        id: The finding's id; it never changes.
        level: Its level.
        title: What is found, in a few words.
        says: What an audit gives cause to say: one line that ends with what to do, or None where it gives none.
        obstacle: Why this check could not be made on an audit, or None where it was.
        milder: Whether the cause weighs less on an audit; the level is then ``warning``. None where it never does.
    """

    id: str
    level: Level
    title: str
    says: Callable[[Audit], str | None]
    obstacle: Callable[[Audit], str | None] = never
    milder: Callable[[Audit], bool] | None = None

    def of(self, audit: Audit) -> Finding | None:
        """The finding, or None where the check passed."""
        message = self.says(audit)
        if message is None:
            return None
        return Finding(self.id, "warning" if self.milder is not None and self.milder(audit) else self.level, message)
