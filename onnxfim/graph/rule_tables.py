"""Tables of rules by operator type, each filled by a decorator of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

Rule = TypeVar("Rule", bound=Callable[..., Any])


def enters(table: dict[str, Rule]) -> Callable[..., Callable[[Rule], Rule]]:
    """The decorator that enters a function into ``table`` as the rule of the operators that it names; each has one."""

    def rule(*ops: str) -> Callable[[Rule], Rule]:
        def enter(function: Rule) -> Rule:
            for op in ops:
                if op in table:
                    raise ValueError(f"operator {op!r} has two rules")
                table[op] = function
            return function

        return enter

    return rule
