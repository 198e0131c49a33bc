"""The documentation: its commands and its Python run, its pages are in the site, and its lists are whole."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest
from click.testing import CliRunner

import onnxfim
from onnxfim.cli import main
from onnxfim.verdict.findings import CHECKS
from onnxfim.verdict.gates import gate_names
from onnxfim.verdict.guarantee_gates import NAMES as GUARANTEED
from tests.support.places import ROOT
from tests.support.snippets import blocks_of, commands_in, pages, sample_folder

if sys.version_info >= (3, 11):
    import tomllib as toml
else:
    import tomli as toml

OWN = (
    "README.md",
    "docs/tutorial.md",
    "docs/data.md",
    "docs/python.md",
    "docs/ci.md",
    "docs/howto/many-machines.md",
)  # pages with tests of their own
PAGES = [p for p in pages() if p not in OWN]
TOPS = ("onnxfim", "templates", "tests", "docs", "sample_models", "onnxfim-core")  # folders whose files pages name
FEW = 12  # samples, where a command of a page names no number


def runnable(page, *languages):
    return [b for b in blocks_of(page) if not b.needs and (not languages or b.language in languages)]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(sample_folder(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


@pytest.mark.slow
@pytest.mark.untraced
@pytest.mark.parametrize("page", [p for p in PAGES if commands_in(runnable(p))])
def test_commands_run(page, folder):
    """All of a page in order in one folder, as a reader would try them; a block may say the code that it ends with."""
    for block in blocks_of(page):
        expected = re.search(r"exit: (\d)", block.needs)
        if block.needs and expected is None:
            continue
        for words in commands_in([block]):
            few = (
                ["--samples", str(FEW)] if words[0] in ("audit", "compare") and not {"--samples", "--baseline"} & set(words) else []
            )
            result = CliRunner().invoke(main, [*words, *few])
            allowed = (int(expected[1]),) if expected else (0, 1) if "--fail-on" in words else (0,)
            assert result.exit_code in allowed, f"{words}: {result.output}"


@pytest.mark.slow
@pytest.mark.untraced
@pytest.mark.parametrize("page", [p for p in PAGES if runnable(p, "python")])
def test_python_runs(page, folder):
    """The blocks of a page are one session."""
    text = "\n".join(b.text for b in runnable(page, "python"))
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-c", text], env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_options_that_the_pages_name_exist():
    known = {o for command in (main, *main.commands.values()) for p in command.params for o in (*p.opts, *p.secondary_opts)}
    for page in PAGES:
        for words in commands_in(runnable(page)):
            named = {w.partition("=")[0] for w in words if re.match(r"--[a-z]", w)}
            assert named <= known | {"--help"}, page


def test_troubleshooting_has_every_finding():
    text = (ROOT / "docs/troubleshooting.md").read_text("utf-8")
    parts = re.split(r"^## ", text, flags=re.MULTILINE)
    for level, heading in (("error", "Findings that make"), ("warning", "Warnings"), ("note", "Notes")):
        (part,) = [p for p in parts if p.startswith(heading)]
        noted = {"no-baseline"} if level == "note" else set()  # of a judgement, not of a check
        listed = set(re.findall(r"^\| `([a-z0-9-]+)` \|", part, re.MULTILINE))
        assert listed == {c.id for c in CHECKS.values() if c.level == level} | noted


def test_troubleshooting_quotes_errors_that_there_are():
    source = "\n".join(p.read_text("utf-8") for p in (ROOT / "onnxfim").rglob("*.py"))
    text = (ROOT / "docs/troubleshooting.md").read_text("utf-8")
    part = text[text.index("## Errors, by their words") : text.index("## It is slow")]
    quoted = re.findall(r"^\| `([^`]+)` \|", part, re.MULTILINE)
    assert quoted
    assert [words for words in quoted if words not in source] == []


def test_the_page_of_formats_has_every_format():
    text = (ROOT / "docs/formats.md").read_text("utf-8")
    tables = [
        set(re.findall(r"`([\w-]+)`", "".join(re.findall(r"^\| ([^|]*) \|", table, re.MULTILINE))))
        for table in text.split("\nA [")[:2]
    ]
    taken = [next(p.type for p in main.commands[name].params if p.name == "outputs").known for name in ("audit", "compare")]
    assert tables == [set(formats) for formats in taken]


def test_the_page_of_gates_has_every_name():
    text = (ROOT / "docs/gates.md").read_text("utf-8")
    (listed,) = re.findall(r"\bNames are (.*?)\.\n", text.replace("MEASURE.STATISTIC", ""), re.MULTILINE | re.DOTALL)
    whole = {n for n in gate_names() if n.startswith(("findings", "smoothing"))} | set(GUARANTEED)
    assert set(re.findall(r"`([\w.@]+)`", listed)) == {part for n in gate_names() for part in ([n] if n in whole else n.split("."))}


def test_the_page_of_installing_has_every_extra():
    text = (ROOT / "docs/install.md").read_text("utf-8")
    extras = set(toml.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"])
    (others,) = re.findall(r"^Other extras: (.*?)\n\n", text, re.MULTILINE | re.DOTALL)
    assert set(re.findall(r"`(\w+)`", others)) == extras - {"cuda"}
    assert "onnxfim[cuda]" in text


def test_the_house_has_every_wing():
    (tree,) = re.findall(r"^onnxfim/\n((?:  .*\n)+)", (ROOT / "docs/architecture.md").read_text("utf-8"), re.MULTILINE)
    wings = {f"{p.parent.name}/" for p in (ROOT / "onnxfim").glob("*/__init__.py")}
    assert {line.split()[0] for line in tree.splitlines() if "/ " in line} == wings


_PATH = re.compile(r"`([\w./-]+\.(?:py|json|js|j2|css|md|yml))`")


@pytest.mark.parametrize("page", ["docs/architecture.md", "docs/adding.md", "CONTRIBUTING.md", "docs/stability.md"])
def test_modules_that_the_pages_name_exist(page):
    """From the root, from the package, or, for one named after its neighbour, by the end of its path; NAME is the reader's own."""
    files = {p.relative_to(ROOT).as_posix() for top in TOPS for p in (ROOT / top).rglob("*") if p.is_file()}
    files |= {p.name for p in ROOT.iterdir() if p.is_file()}
    named = [n for n in _PATH.findall((ROOT / page).read_text("utf-8")) if "NAME" not in n]
    assert named
    assert [n for n in named if not {n, f"onnxfim/{n}"} & files and not any(f.endswith(f"/{n}") for f in files)] == []


def test_every_page_is_in_the_site():
    listed = re.findall(r'"([a-z/-]+\.md)"', (ROOT / "zensical.toml").read_text("utf-8"))
    assert sorted(f"docs/{name}" for name in listed) == [p for p in pages() if p != "README.md"]
    assert toml.loads((ROOT / "zensical.toml").read_text("utf-8"))["project"]["site_name"] == "onnxfim"


def test_the_reference_has_every_public_name():
    named = re.findall(r"^::: onnxfim\.(\w+)$", (ROOT / "docs/api.md").read_text("utf-8"), re.MULTILINE)
    assert sorted(named) == sorted(set(onnxfim.__all__) - {"__version__"})
