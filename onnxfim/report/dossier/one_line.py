"""One line of a dossier: a topic of a standard, what the audit says, and where the value stands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

#: What the dossier has of a topic.
State: TypeAlias = Literal["measured", "decided", "stated", "in part", "not in this dossier"]


@dataclass(frozen=True)
class Line:
    """One line of a table.

    Attributes:
        topic: What the standard asks about, in its terms.
        text: What the audit says.
        pointer: JSON Pointer of the value in the record; empty where there is none.
        anchor: Section of the page that shows it; empty where there is none.
        state: What the dossier has of it.
    """

    topic: str
    text: str
    pointer: str = ""
    anchor: str = ""
    state: State = "stated"
