"""Why a request brought no answer, and what may be done about it."""

from __future__ import annotations

from typing import Literal, TypeAlias

#: What may be done: ask again, ask for other or fewer rows, or nothing.
Remedy: TypeAlias = Literal["again", "rows", "none"]


class Trouble(Exception):
    """A request that brought no answer to be used.

    Attributes:
        said: What happened, in words that end a sentence; foreign text in it is made visible, and no secret is in it.
        remedy: ``again`` where another try may go through, ``rows`` where these rows, or so many of them, are not taken, ``none``
            where no request will be.
        mends: What to do about it, in one sentence; empty where that is not known.
        wait: Seconds that the server asks to wait before the next request.
        slow: Whether time ran out: fewer rows may be in time.
        tries: Requests in all, before other or fewer rows are asked for.
    """

    def __init__(
        self,
        said: str,
        remedy: Remedy = "again",
        *,
        mends: str = "",
        wait: float | None = None,
        slow: bool = False,
        tries: int = 1,
    ) -> None:
        super().__init__(said)
        self.said, self.remedy, self.mends, self.wait, self.slow, self.tries = said, remedy, mends, wait, slow, tries
