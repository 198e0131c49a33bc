"""The program around its commands: safe streams, usage errors in visible text, the exit code."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import click

from onnxfim.cli.completing import answer
from onnxfim.cli.console import Console
from onnxfim.cli.helping import ExplainedGroup
from onnxfim.cli.outlets import unbreakable
from onnxfim.cli.painted import coloured
from onnxfim.cli.signals import code_of, ended_by_signals
from onnxfim.record.ended import ended_words
from onnxfim.record.foreign_text import one_line
from onnxfim.runtime.stopping import Stop

#: Where a context's ``meta`` has the words of the command, as they were typed.
WORDS = "onnxfim.words"


class Program(ExplainedGroup):
    """A group of commands that no stream can break, whatever is closed, full or of a narrow encoding."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Keep the words of the command, for the report that it makes."""
        ctx.meta[WORDS] = ("onnxfim", *args)
        return super().parse_args(ctx, args)

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Run a command; standing alone, end with its exit code, or with 2 where its whole result could not be printed.

        Signals end it as `cli.signals` says, from its first option on.
        """
        stop = Stop()
        with unbreakable() as stdout, stop.current(), ended_by_signals(stop):
            console = Console()
            run = super().main
            given = (args, prog_name, complete_var)
            extra.setdefault("color", coloured(stdout))
            if not standalone_mode:
                return run(*given, standalone_mode=False, windows_expand_args=windows_expand_args, **extra)
            if (offered := answer(self)) is not None:
                stdout.deliver(f"{offered}\n".encode())  # as it is: a shell reads it
                sys.exit(0)
            try:
                returned = run(*given, standalone_mode=False, windows_expand_args=windows_expand_args, **extra)
                code = returned if isinstance(returned, int) else 0
            except SystemExit as end:
                code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
            except click.ClickException as error:
                _show(error, console)
                _tell_ci(error, sys.argv[1:] if args is None else args)
                code = error.exit_code
            except click.Abort:
                console.error(f"{ended_words(stop.by)} before anything was measured.")
                code = code_of(stop.by)
            if code == 0 and stdout.undelivered and not stdout.abandoned:
                console.error(f"stdout: cannot be written ({stdout.fault}), not all was delivered. Open it, or write to a file.")
                code = 2
        sys.exit(code)


def _tell_ci(error: click.ClickException, arguments: Sequence[str]) -> None:
    """Where an audit was asked for and its options cannot be read: say so in its outputs too."""
    if "audit" in arguments[:1]:
        from onnxfim.cli.without_report import asked_for, write_reason

        write_reason(asked_for(arguments), "", one_line(error.format_message()), error.exit_code)


def _show(error: click.ClickException, console: Console) -> None:
    """A usage error as click shows it, with all that was given made visible."""
    context = getattr(error, "ctx", None)
    if isinstance(error, getattr(click.exceptions, "NoArgsIsHelpError", ())):
        console.block(click.unstyle(error.format_message()))
        return
    if isinstance(context, click.Context):
        console.block(f"{context.get_usage()}\nTry '{context.command_path} --help' for help.\n")
    console.block(f"Error: {one_line(error.format_message())}")
