"""How a command explains itself: options under headings, examples that can be copied, and where more is written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import click

#: Headings of ``--help`` in their order, by the word that an option's declaration has.
HEADINGS = {
    "data": "Input: the samples",
    "model": "Input: the model",
    "served": "Input: a served model",
    "measure": "Measure",
    "run": "Run",
    "fleet": "Many machines",
    "output": "Output",
    "gates": "Gates",
    "general": "General",
}
#: Commands under their headings.
_COMMANDS = {
    "Measure and compare": ("audit", "compare", "bounds"),
    "Many machines": ("plan", "merge"),
    "Look": ("inspect", "doctor"),
    "Verifiers": ("export-vnnlib",),
    "Files": ("init", "convert", "schema"),
    "Shell": ("completion", "man"),
}
#: What stands before the name of one of the documentation's pages: the folder they are in.
DOCUMENTATION = "docs/"
_WIDEST_TERM = 26  # columns of an option's name and value; a longer one has a line of its own


@dataclass(frozen=True)
class Example:
    """A command that can be copied, and what it does."""

    does: str
    command: str


class Formatter(click.HelpFormatter):
    """click's formatter with bold headings, and examples as they are typed."""

    def write_heading(self, heading: str) -> None:
        """A heading on a line of its own."""
        self.write(f"{'':>{self.current_indent}}{click.style(f'{heading}:', bold=True)}\n")

    def write_examples(self, examples: Sequence[Example]) -> None:
        """Each with a comment before it; a command is never broken."""
        with self.section("Examples"):
            for example in examples:
                for line in (f"# {example.does}", *example.command.split("\n")):
                    self.write(f"{'':>{self.current_indent}}{line}\n")


class HelpContext(click.Context):
    """A context whose help has bold headings."""

    formatter_class = Formatter


class ExplainedCommand(click.Command):
    """A command whose ``--help`` has its examples first and its options under headings.

    Attributes:
        examples: Commands that can be copied.
        pages: The documentation's pages about it.
        codes: Exit codes, and what each says.
    """

    context_class = HelpContext

    def __init__(
        self,
        *args: Any,
        examples: Sequence[Example] = (),
        pages: Sequence[str] = (),
        codes: Sequence[tuple[str, str]] = (),
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.examples, self.pages, self.codes = tuple(examples), tuple(pages), tuple(codes)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Examples, then the options."""
        if self.examples and isinstance(formatter, Formatter):
            formatter.write_examples(self.examples)
        self.write_options(ctx, formatter)

    def write_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The options of each heading, in the order in which they were declared."""
        for heading, rows in rows_by_heading(self.get_params(ctx), ctx):
            rows[0] = (f"{rows[0][0]:<{_WIDEST_TERM}}", rows[0][1])  # one width under all headings
            with formatter.section(heading):
                formatter.write_dl(rows, col_max=_WIDEST_TERM)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The epilog, the exit codes, and where more is written."""
        super().format_epilog(ctx, formatter)
        if self.codes:
            with formatter.section("Exit codes"):
                formatter.write_dl(self.codes)
        if self.pages:
            with formatter.section("More"):
                for page in self.pages:
                    formatter.write_text(f"{DOCUMENTATION}{page}")


class ExplainedGroup(ExplainedCommand, click.Group):
    """A group whose ``--help`` has its examples first and its commands under headings, each with one whole line."""

    command_class = ExplainedCommand

    def write_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Commands, options."""
        self.format_commands(ctx, formatter)
        with formatter.section("Options"):
            formatter.write_dl(_rows(self.get_params(ctx), ctx))

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The commands under their headings; those that have none come last."""
        placed = {name for names in _COMMANDS.values() for name in names}
        headings = {**_COMMANDS, "Others": tuple(name for name in self.list_commands(ctx) if name not in placed)}
        column = max(map(len, self.commands), default=0)
        for heading, names in headings.items():
            rows = [
                (f"{n:<{column}}", c.get_short_help_str(limit=200)) for n in names if (c := self.commands.get(n)) and not c.hidden
            ]
            if rows:
                with formatter.section(heading):
                    formatter.write_dl(rows)


def heading_of(parameter: click.Parameter) -> str | None:
    """The heading of an option, None of one that was declared without; click's own ones are general."""
    if "--help" in parameter.opts or "--version" in parameter.opts:
        return HEADINGS["general"]
    return HEADINGS.get(getattr(parameter, "group", ""))


def by_heading(parameters: Sequence[click.Parameter]) -> Iterator[tuple[str, list[click.Parameter]]]:
    """Options under their headings, in the order of these; those without one stand under the last."""
    options = [p for p in parameters if isinstance(p, click.Option)]
    last = HEADINGS["general"]
    for heading in HEADINGS.values():
        found: list[click.Parameter] = [p for p in options if (heading_of(p) or last) == heading]
        if found:
            yield heading, found


def rows_by_heading(parameters: Sequence[click.Parameter], ctx: click.Context) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """What the options under each heading are called and what they do, without those that are hidden."""
    for heading, found in by_heading(parameters):
        if rows := _rows(found, ctx):
            yield heading, rows


def _rows(parameters: Sequence[click.Parameter], ctx: click.Context) -> list[tuple[str, str]]:
    return [row for p in parameters if (row := p.get_help_record(ctx)) is not None]
