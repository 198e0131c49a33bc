"""How commands explain themselves: headings, examples, completion by a real shell, manual pages that troff takes."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from onnxfim.cli import main
from onnxfim.cli.completing import files, formats
from onnxfim.cli.config import template
from onnxfim.cli.helping import DOCUMENTATION, HEADINGS, by_heading, heading_of
from onnxfim.cli.man_pages import manual_pages
from onnxfim.report.formats import FOLDERS, FORMATS
from tests.support.places import BASH, GROFF, ROOT

COMMANDS = sorted(main.commands)


def helped(*arguments, columns="80"):
    done = CliRunner().invoke(main, [*arguments, "--help"], env={"COLUMNS": columns})
    assert done.exit_code == 0, done.output
    return done.output


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_belongs_to_a_heading(name):
    parent = click.Context(main, **main.context_settings)  # a command keeps the help option that it is first asked for
    for parameter in main.commands[name].get_params(click.Context(main.commands[name], parent=parent)):
        if isinstance(parameter, click.Option):
            assert heading_of(parameter) is not None, f"{name} {parameter.opts[0]}: declare it with group=, one of {list(HEADINGS)}"


def test_an_option_without_a_heading_is_seen():
    assert heading_of(click.Option(["--new"])) is None


@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_help_fits_80_columns_and_has_examples(name):
    command = main.commands[name] if name else main
    text = helped(*([name] if name else []))
    assert max(map(len, text.splitlines())) <= 80
    assert command.examples
    for example in command.examples:
        assert example.command in "\n".join(line[2:] for line in text.splitlines()), "whole, to be copied"


def test_the_headings_are_in_order_and_hold_what_they_say():
    text = helped("audit")
    at = [text.index(f"\n{heading}:\n") for heading in HEADINGS.values()]
    assert at == sorted(at)
    found = {heading: {p.name for p in parameters} for heading, parameters in by_heading(main.commands["audit"].params)}
    assert {"data", "samples", "mean"} <= found["Input: the samples"]
    assert {"input", "feed", "output", "output_kind"} <= found["Input: the model"]
    assert {"method", "budget", "attack"} <= found["Measure"]
    assert {"providers", "timeout", "cache_dir"} <= found["Run"]
    assert {"outputs", "assets", "quiet"} <= found["Output"]
    assert {"fail_on", "baseline", "exit_zero"} <= found["Gates"]
    assert {"fail_on_change", "allow_inconclusive"} <= {
        p.name for heading, parameters in by_heading(main.commands["compare"].params) if heading == "Gates" for p in parameters
    }


def test_every_command_has_one_whole_line():
    text = helped()
    for name, command in main.commands.items():
        assert re.search(rf"^  {name} +{re.escape(command.short_help)}$", text, re.MULTILINE), name
    assert "Others:" not in text, "give the command its heading"


@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_pages_that_help_names_are_there(name):
    for page in (main.commands[name] if name else main).pages:
        assert (ROOT / DOCUMENTATION / page).is_file(), page


def test_the_configuration_file_has_the_same_headings():
    lines = template(main.commands["audit"]).splitlines()
    told = [line.removeprefix("## ") for line in lines if line.startswith("## ")]
    assert told == [h for h in HEADINGS.values() if h != "General"], "what is general is set on the command line alone"


def test_help_is_plain_without_a_terminal_and_in_usage_errors():
    assert "\x1b" not in helped("audit")
    done = CliRunner().invoke(main, [])
    assert "Measure and compare:" in done.output
    assert "u001b" not in done.output


#: Asks as a bash does: the line that was typed, and what breaks its words.
SCRIPT = """
eval "$(onnxfim completion bash)"
compopt() { echo "compopt $*" | tr '\\n' ' '; }
COMP_LINE="$1" COMP_POINT=${#1} COMP_WORDBREAKS="$2"
COMPREPLY=()
_onnxfim_completion onnxfim
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def shell(tmp_path_factory):
    """Completes a line in a real bash, in a folder with two files and a folder."""
    bash = shutil.which("bash")
    if bash is None or os.name != "posix":
        BASH.skip()
    here = tmp_path_factory.mktemp("completion")
    for name in ("report.html", "model.onnx"):
        (here / name).write_text("")
    (here / "reports").mkdir()
    (here / "bin").mkdir()
    command = here / "bin" / "onnxfim"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m onnxfim "$@"\n')
    command.chmod(0o755)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PATH": f"{here / 'bin'}{os.pathsep}{os.environ['PATH']}"}

    def complete(line, breaks=" \t\n\"'><=;|&(:"):
        done = subprocess.run(
            [bash, "--norc", "-c", SCRIPT, "bash", line, breaks],
            cwd=here, env=environment, capture_output=True, text=True, check=True, timeout=60,
        )  # fmt: skip
        assert done.stderr == ""
        return done.stdout.split()

    return complete


class TestCompletion:
    @pytest.mark.parametrize(
        ("line", "offered"),
        [
            ("onnxfim ", COMMANDS),
            ("onnxfim ins", ["inspect"]),
            ("onnxfim audit m.onnx --max-b", ["--max-budget"]),
            ("onnxfim audit m.onnx --method ", ["auto", "gradient", "sketch", "exact"]),
            ("onnxfim audit m.onnx --method=sk", ["sketch"]),
            ("onnxfim audit m.onnx --provider cu", ["cuda"]),
            ("onnxfim audit m.onnx --fail-on lambda_max.p", ["lambda_max.p95"]),
            ("onnxfim audit m.onnx --data ran", ["random"]),
            ("onnxfim audit m.onnx -o js", ["compopt", "-o", "nospace", "json="]),
            ("onnxfim audit m.onnx -o html=report.", ["report.html"]),
            ("onnxfim completion ", ["bash", "zsh", "fish"]),
            ("onnxfim audit m.onnx --data ", ["compopt", "-o", "default"]),
            ("onnxfim audit mo", ["compopt", "-o", "default"]),
            ("onnxfim audit m.onnx --cache-dir ", ["compopt", "-o", "dirnames"]),
        ],
    )
    def test_bash(self, shell, line, offered):
        assert shell(line) == offered

    def test_bash_that_breaks_no_word_at_an_equals_sign(self, shell):
        assert shell("onnxfim audit m.onnx -o html=report.", " \t\n") == ["html=report.html"]

    def test_formats_are_those_of_the_command(self, shell):
        assert [w for w in shell("onnxfim bounds m.onnx -o ") if w.endswith("=")] == ["html=", "json="]
        assert [w for w in shell("onnxfim audit m.onnx -o ") if w.endswith("=")] == [f"{name}=" for name in (*FORMATS, *FOLDERS)]

    @pytest.mark.parametrize("shell_name", ["bash", "zsh", "fish"])
    def test_each_shell_has_a_script(self, shell_name):
        done = CliRunner().invoke(main, ["completion", shell_name])
        assert done.exit_code == 0
        assert "_ONNXFIM_COMPLETE=" in done.output

    def test_paths_within_a_word(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "out").mkdir()
        (tmp_path / "out.html").write_text("")
        (tmp_path / ".hidden").write_text("")
        assert [i.value for i in formats(("html",), "html=o")] == ["html=out/", "html=out.html"]
        assert [i.value for i in formats(("html",), "dossier=o", folders=("dossier",))] == ["dossier=out/"]
        assert [i.value for i in files("")] == ["out/", "out.html"]
        assert [i.value for i in files("", folders=True)] == ["out/"]
        assert [i.value for i in files(".h")] == [".hidden"]
        assert files("none/") == []


PAGES = dict(manual_pages(main))


class TestManualPages:
    def test_there_is_one_of_each_command(self):
        assert set(PAGES) == {"onnxfim.1", *(f"onnxfim-{name}.1" for name in COMMANDS)}

    @pytest.mark.parametrize("name", PAGES)
    def test_troff_takes_it_without_a_word(self, name):
        groff = shutil.which("groff")
        if groff is None:
            GROFF.skip()
        done = subprocess.run(
            [groff, "-man", "-ww", "-Tutf8", "-rLL=78n"],
            input=PAGES[name].encode(),
            capture_output=True,
            check=True,
            timeout=60,
        )
        assert done.stderr == b""
        text = re.sub(r"\x1b\[[0-9;]*m|.\x08", "", done.stdout.decode("utf-8"))
        assert "NAME" in text
        assert "SYNOPSIS" in text
        assert "\\" not in text.replace(" \\\n", ""), "no escape is left over"

    def test_it_holds_every_option_and_example(self):
        page = PAGES["onnxfim-audit.1"].replace("\\-", "-").replace("\\e", "\\")
        command = main.commands["audit"]
        for parameter in command.params:
            if isinstance(parameter, click.Option) and not parameter.hidden:
                assert parameter.opts[-1] in page
        for example in command.examples:
            assert example.command in page
        assert "EXIT STATUS" in page

    def test_they_leave_the_commands_as_they_were(self):
        assert dict(manual_pages(main)) == PAGES
        assert CliRunner().invoke(main, ["inspect", "-h"]).exit_code == 0

    def test_they_are_written_into_a_folder(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        done = CliRunner().invoke(main, ["man", "share/man1"])
        assert done.exit_code == 0, done.output
        assert {p.name for p in (tmp_path / "share/man1").iterdir()} == set(PAGES)
        assert "share/man1: " in done.output
        (tmp_path / "file").write_text("")
        refused = CliRunner().invoke(main, ["man", "file/man1"])
        assert refused.exit_code == 2
        assert "onnxfim: file/man1: cannot be made" in refused.output

    def test_no_text_is_a_request(self):
        from onnxfim.cli.man_pages import _text

        assert _text(".B bold") == "\\&.B bold"
        assert _text("'tis") == "\\&'tis"
        assert _text("a\\b -c λ") == "a\\eb \\-c \\[u03BB]"
