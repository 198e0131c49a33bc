"""What a shell completes: the scripts that make it ask, and the values that options may have."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

import click
from click.shell_completion import BashComplete, CompletionItem, add_completion_class, get_completion_class

_NAME, _VARIABLE = "onnxfim", "_ONNXFIM_COMPLETE"

# Bash takes `-o html=re` for three words where `=` is among COMP_WORDBREAKS, and replaces the last of them alone: the line is read
# as it was typed, and what stands before the last break is taken off each answer.
_BASH = """\
%(complete_func)s() {
    local IFS=$'\\n'
    local response typed breaks begun=""
    typed="${COMP_LINE:0:COMP_POINT}"
    response=$(env COMP_WORDS="$typed" COMP_CWORD=-1 %(complete_var)s=bash_complete "$1")
    COMPREPLY=()
    typed="${typed##*[[:space:]]}"
    for breaks in = :; do
        if [[ "$COMP_WORDBREAKS" == *"$breaks"* && "$typed" == *"$breaks"* ]]; then
            begun="${typed%%"${typed##*[=:]}"}"
        fi
    done
    for completion in $response; do
        IFS=',' read -r type value <<< "$completion"
        if [[ $type == 'dir' ]]; then
            compopt -o dirnames
        elif [[ $type == 'file' ]]; then
            compopt -o default
        elif [[ $type == 'plain' ]]; then
            COMPREPLY+=("${value#"$begun"}")
            if [[ $value == *[=/] ]]; then
                compopt -o nospace
            fi
        fi
    done
    return 0
}

%(complete_func)s_setup() {
    complete -o nosort -F %(complete_func)s %(prog_name)s
}

%(complete_func)s_setup;
"""


class TypedBash(BashComplete):
    """click's completion for bash that reads the line as it was typed."""

    source_template = _BASH

    @staticmethod
    def _check_version() -> None:
        """Nothing: the script says what it needs where it fails, and nothing is started for it."""

    def get_completion_args(self) -> tuple[list[str], str]:
        """The words before the one that is completed, and what is typed of that."""
        from click.shell_completion import split_arg_string

        line = os.environ.get("COMP_WORDS", "")
        words = split_arg_string(line)
        incomplete = "" if line[-1:].isspace() or len(words) < 2 else words.pop()
        return words[1:], incomplete


def script(program: click.Command, shell: str) -> str:
    """The script that makes ``shell`` complete the program's commands."""
    add_completion_class(TypedBash)
    found = get_completion_class(shell)
    if found is None:
        raise click.UsageError(f"{shell}: no shell that is known here, expected bash, zsh or fish.")
    return found(program, {}, _NAME, _VARIABLE).source()


def answer(program: click.Command) -> str | None:
    """What a shell is told that asks, by its variable, for a script or for completions; None where none asks."""
    shell, _, wanted = os.environ.get(_VARIABLE, "").partition("_")
    add_completion_class(TypedBash)
    found = get_completion_class(shell) if shell else None
    if found is None or wanted not in ("source", "complete"):
        return None
    asked = found(program, {}, _NAME, _VARIABLE)
    return asked.source() if wanted == "source" else asked.complete()


def words(known: Iterable[str], incomplete: str) -> list[CompletionItem]:
    """Those of the known words that begin so."""
    return [CompletionItem(word) for word in known if word.startswith(incomplete)]


def files(incomplete: str, *, before: str = "", folders: bool = False) -> list[CompletionItem]:
    """The files that begin so, each with ``before``; folders end in a slash. For words of which a path is only a part."""
    head, part = os.path.split(incomplete)
    try:
        with os.scandir(head or ".") as entries:
            found = sorted(
                (e.name, e.is_dir()) for e in entries if e.name.startswith(part) and (part or not e.name.startswith("."))
            )
    except OSError:
        return []
    return [CompletionItem(f"{before}{os.path.join(head, n)}{'/' if d else ''}") for n, d in found if d or not folders]


def formats(names: Sequence[str], incomplete: str, *, folders: Sequence[str] = ()) -> list[CompletionItem]:
    """``FORMAT=``, then its file; or its folder, of those that are ``folders``."""
    name, equals, path = incomplete.partition("=")
    if equals and name in (*names, *folders):
        return files(path, before=f"{name}=", folders=name in folders)
    return words((f"{n}=" for n in (*names, *folders)), incomplete)


def gates(incomplete: str) -> list[CompletionItem]:
    """The names that a gate may have."""
    from onnxfim.verdict.gates import gate_names

    return words(gate_names(), incomplete)


def providers(incomplete: str) -> list[CompletionItem]:
    """The short names of providers."""
    from onnxfim.runtime.providers import _SHORT

    return words(("auto", *_SHORT), incomplete)
