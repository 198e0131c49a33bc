"""The stages of an audit: each takes the context and what earlier stages found, and returns what it found."""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, TypeVar

from onnxfim.auditing.context import ENDS, Context, Found
from onnxfim.runtime.watching import current_watch

P = ParamSpec("P")
C = TypeVar("C", bound=Context)
R = TypeVar("R")

_NOT_TOLD = 1  # a level of the log below all that are used


def as_found(context: Context, reason: str, *given: object) -> Found:
    """What an audit goes on with where a stage fails that adds to what was found: what was found before it."""
    return next(found for found in given if isinstance(found, Found))


def stage(
    name: str,
    *,
    instead: Callable[..., Any] | None = None,
    told: tuple[type[Exception], ...] = (),
    small: bool = False,
) -> Callable[[Callable[Concatenate[C, P], R]], Callable[Concatenate[C, P], R]]:
    """Mark a function of a context as a stage of the audit: its start, end and cost go to the log under its module's name.

    Args:
        name: What the stage does.
        instead: Makes what an audit goes on with where the stage fails unexpectedly: a function of the context, the reason and the
            stage's other arguments. The failure is noted in the audit. None where an audit cannot do without the stage.
        told: Errors that are no failure of the stage: they end the audit with their message.
        small: A part of another stage, or one that makes no pass: the log does not tell of it unless it fails.
    """

    def marked(function: Callable[Concatenate[C, P], R]) -> Callable[Concatenate[C, P], R]:
        log = logging.getLogger(function.__module__)
        begins, ends = (_NOT_TOLD, _NOT_TOLD) if small else (logging.DEBUG, logging.INFO)

        @functools.wraps(function)
        def logged(context: C, /, *args: P.args, **kwargs: P.kwargs) -> R:
            log.log(begins, "%s: begins (%s)", name, context.facts())
            started, before = time.perf_counter(), context.meter.passes
            ending = "broken off"
            own = not small and context.meter.begins(name)
            try:
                current_watch().enter(name)
                result = function(context, *args, **kwargs)
                ending = "done"
                return result
            except ENDS:
                raise
            except Exception as error:
                if instead is None or isinstance(error, told):
                    raise
                ending = "failed"
                made: R = instead(context, context.faults.note(name, error), *args, **kwargs)
                return made
            finally:
                if own:
                    context.meter.over()
                passes = context.meter.passes - before
                log.log(
                    ends, "%s: %s in %.2f s, %d passes (%s)", name, ending, time.perf_counter() - started, passes, context.facts()
                )

        return logged

    return marked
