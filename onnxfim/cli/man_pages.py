"""Manual pages, made from what the commands say of themselves."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from onnxfim import __version__
from onnxfim.cli.files import check_writable, write
from onnxfim.cli.helping import ExplainedCommand, rows_by_heading
from onnxfim.errors import OutputError
from onnxfim.record.foreign_text import visible

_SECTION = 1
_NAME = "onnxfim"


def write_pages(program: click.Group, folder: str) -> tuple[str, ...]:
    """Write the page of the program and one of each command into a folder; returns their names.

    Raises:
        OutputError: the folder cannot be made, or a page cannot be written.
    """
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be made ({error.strerror}), expected a folder for the pages. Name another.") from error
    pages = dict(manual_pages(program))
    for name in pages:
        check_writable(str(Path(folder) / name))
    for name, text in pages.items():
        write(str(Path(folder) / name), text)
    return tuple(pages)


def manual_pages(program: click.Group) -> Iterator[tuple[str, str]]:
    """File name and text of each page, in troff with the macros of man(7)."""
    context = click.Context(
        program, info_name=_NAME, **program.context_settings
    )  # a command keeps the help option it is first asked for
    yield f"{_NAME}.{_SECTION}", _page(program, context)
    for name in program.list_commands(context):
        command = program.get_command(context, name)
        if command is not None and not command.hidden:
            yield f"{_NAME}-{name}.{_SECTION}", _page(command, click.Context(command, info_name=name, parent=context))


def _page(command: click.Command, context: click.Context) -> str:
    title = context.command_path.replace(" ", "-")
    parts = [
        f'.TH "{_plain(title.upper())}" "{_SECTION}" "" "onnxfim {__version__}" "onnxfim"',
        ".SH NAME",
        f"{_text(title)} \\- {_text(_first(command))}",
        ".SH SYNOPSIS",
        f".B {_text(context.command_path)}",
        _text(" ".join(command.collect_usage_pieces(context))),
        ".SH DESCRIPTION",
        *_paragraphs(command.help or ""),
    ]
    if isinstance(command, click.Group):
        parts += [".SH COMMANDS", *_commands(command, context)]
    for heading, rows in rows_by_heading(command.get_params(context), context):
        name = "OPTIONS" if isinstance(command, click.Group) else f"OPTIONS: {heading.upper()}"
        parts += [f".SH {_text(name)}", *_definitions(rows)]
    if isinstance(command, ExplainedCommand) and command.examples:
        parts.append(".SH EXAMPLES")
        for example in command.examples:
            parts += [".TP", _text(f"{example.does}:"), ".nf", *map(_text, example.command.split("\n")), ".fi"]
    if isinstance(command, ExplainedCommand) and command.codes:
        parts += [".SH EXIT STATUS", *_definitions(command.codes)]
    return "\n".join([*parts, *_see_also(command, context)]) + "\n"


def _see_also(command: click.Command, context: click.Context) -> list[str]:
    root = context.find_root().command
    others = [_NAME, *(f"{_NAME}-{n}" for n in (root.list_commands(context) if isinstance(root, click.Group) else ()))]
    mine = context.command_path.replace(" ", "-")
    told = ", ".join(f"\\fB{_text(n)}\\fR({_SECTION})" for n in others if n != mine)
    return [".SH SEE ALSO", told]


def _commands(command: click.Group, context: click.Context) -> Iterator[str]:
    for name in command.list_commands(context):
        found = command.get_command(context, name)
        if found is not None and not found.hidden:
            yield from (".TP", f"\\fB{_text(f'{_NAME}-{name}')}\\fR({_SECTION})", _text(found.get_short_help_str(limit=200)))


def _definitions(rows: Sequence[tuple[str, str]]) -> Iterator[str]:
    for term, meaning in rows:
        yield from (".TP", f"\\fB{_text(term)}\\fR", _text(" ".join(meaning.split())))


def _paragraphs(text: str) -> Iterator[str]:
    for paragraph in re.split(r"\n\s*\n", text.strip()):
        yield from (".PP", _text(" ".join(paragraph.split())))


def _first(command: click.Command) -> str:
    """What a command is for, in one line without its full stop."""
    told = command.short_help or (command.help or "").strip().partition("\n")[0]
    return " ".join(told.split()).removesuffix(".")


def _plain(text: str) -> str:
    """Text within quotes of a macro."""
    return _text(text).replace('"', "\\(dq")


def _text(text: str) -> str:
    """Text as troff prints it: backslashes and minus signs as they are, no line that begins like a request."""
    shown = visible(text).replace("\\", "\\e").replace("-", "\\-")
    shown = "".join(c if c.isascii() else f"\\[u{ord(c):04X}]" for c in shown)
    return f"\\&{shown}" if shown[:1] in (".", "'") else shown
