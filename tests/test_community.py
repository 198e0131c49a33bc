"""The files for people who come after: each fits its host's schema, names what exists, and agrees with the rest."""

from __future__ import annotations

import os
import re
import shutil
import sys

import pytest

import onnxfim
from onnxfim.cli import main
from tests.support.checkers import PATH, audited, fits, run
from tests.support.places import ACTIONLINT, DEV, GIT, ROOT

if sys.version_info >= (3, 11):
    import tomllib as toml
else:
    import tomli as toml

yaml = DEV.load("yaml")

pytestmark = pytest.mark.untraced  # of the package it runs the commands' names alone

WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
FORMS = sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml"))
PROJECT = toml.loads((ROOT / "pyproject.toml").read_text("utf-8"))
GITHUB_ACTION = re.compile(r"uses: ([\w./-]+)@([0-9a-f]{40}) # v\d+\.\d+\.\d+(\s|$)")


def read(path):
    return (ROOT / path).read_text("utf-8")


def load(path):
    """YAML 1.1 reads the key `on` as true; the files mean the word."""
    record = yaml.safe_load(path.read_text("utf-8"))
    return {("on" if key is True else key): value for key, value in record.items()}


# Schemas.

SCHEMAS = {
    "github-workflows": WORKFLOWS,
    "github-issue-forms": [f for f in FORMS if f.name != "config.yml"],
    "github-issue-config": [ROOT / ".github/ISSUE_TEMPLATE/config.yml"],
    "github-actions": [ROOT / "action.yml"],
    "dependabot": [ROOT / ".github/dependabot.yml"],
    "citation-file-format": [ROOT / "CITATION.cff"],
}


@pytest.mark.parametrize("schema", SCHEMAS)
def test_files_fit_their_hosts_schemas(schema):
    assert SCHEMAS[schema]
    done = fits(schema, *SCHEMAS[schema])
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("schema", SCHEMAS)
@pytest.mark.slow
def test_a_file_that_does_not_fit_is_told(schema, tmp_path):
    (tmp_path / "file.yml").write_text("blank_issues_enabled: perhaps\n", "utf-8")
    assert fits(schema, tmp_path / "file.yml").returncode == 1


def test_no_file_is_left_unchecked():
    here = {p for p in (ROOT / ".github").rglob("*") if p.is_file() and p.suffix != ".md"}
    assert here <= {f for files in SCHEMAS.values() for f in files}


# Workflows.


def test_workflows_pass_the_security_audit():
    done = audited(ROOT / ".github", ROOT / "action.yml", ROOT / ".pre-commit-config.yaml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_security_audit_finds_something(tmp_path):
    bad = read(".github/workflows/ci.yml").replace("run: pytest", "run: echo ${{ github.event.pull_request.title }}")
    (tmp_path / "ci.yml").write_text(bad, "utf-8")
    done = audited(tmp_path / "ci.yml")
    assert done.returncode != 0
    assert "template-injection" in done.stdout


def test_workflows_pass_actionlint():
    if shutil.which("actionlint", path=PATH) is None:
        ACTIONLINT.skip()
    done = run("actionlint", *WORKFLOWS)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda p: p.name)
def test_workflows_may_do_little(path):
    record = load(path)
    assert record["permissions"] == {}
    assert "pull_request_target" not in record["on"]
    for name, job in record["jobs"].items():
        assert job["timeout-minutes"] <= 90
        publishes = "environment" in job
        assert job["permissions"] == ({"id-token": "write"} if publishes else {"contents": "read"}), name
    assert "secrets." not in path.read_text("utf-8"), "publishing is trusted: there is no token"


def test_actions_are_pinned_by_commit():
    pins = {}
    for path in WORKFLOWS:
        text = path.read_text("utf-8")
        found = GITHUB_ACTION.findall(text)
        assert len(found) == text.count("uses:"), f"{path.name}: an action is not pinned by its commit with its version beside it"
        for action, commit, _ in found:
            assert pins.setdefault(action, commit) == commit, f"{path.name}: {action} has two versions"


def test_matrix_is_what_the_package_says():
    matrix = load(ROOT / ".github/workflows/ci.yml")["jobs"]["tests"]["strategy"]["matrix"]
    prefix = "Programming Language :: Python :: "
    said = [c.removeprefix(prefix) for c in PROJECT["project"]["classifiers"] if c.startswith(prefix)]
    assert matrix["python"] == said
    assert PROJECT["project"]["requires-python"] == f">={said[0]}"
    assert {system.partition("-")[0] for system in matrix["os"]} == {"ubuntu", "macos", "windows"}


def test_workflows_run_what_is_there():
    steps = [s for p in WORKFLOWS for job in load(p)["jobs"].values() for s in job["steps"]]
    scripts = [s["run"] for s in steps if "run" in s]
    assert ".ci/run" in scripts
    assert os.access(ROOT / ".ci/run", os.X_OK) or os.name == "nt"
    for name in re.findall(r"\$models/([\w.]+)", "\n".join(scripts)):
        assert (ROOT / "sample_models" / name).is_file()


def test_only_a_tag_publishes():
    record = load(ROOT / ".github/workflows/release.yml")
    assert record["on"] == {"push": {"tags": ["v*"]}}
    publish = record["jobs"]["publish"]
    assert publish["environment"]["name"] == "pypi"
    assert publish["needs"] == "build"
    assert publish["steps"][-1]["with"]["attestations"] is True


# Hooks.


@pytest.mark.parametrize(("command", "file"), [("config", ".pre-commit-config.yaml"), ("manifest", ".pre-commit-hooks.yaml")])
def test_hooks_are_in_the_form_of_pre_commit(command, file, tmp_path):
    done = run("pre-commit", f"validate-{command}", ROOT / file, env={"PRE_COMMIT_HOME": str(tmp_path)})
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@GIT.unless(shutil.which("git") is not None)
@pytest.mark.parametrize(
    ("file", "old", "new", "hook"),
    [
        (None, "", "", None),
        ("onnxfim/errors.py", "from __future__", "import os\nfrom __future__", "ruff-check"),
        ("onnxfim/errors.py", "from __future__ import", "from __future__   import", "ruff-format"),
        (".github/workflows/ci.yml", "runs-on:", "runs-at:", "workflows"),
        (".github/dependabot.yml", "interval: weekly", "interval: often", "dependabot"),
        (".github/ISSUE_TEMPLATE/bug.yml", "type: input", "type: guess", "issue-forms"),
        ("action.yml", "using: composite", "using: magic", "action"),
        ("CITATION.cff", "type: software", "type: hardware", "citation"),
        ("SECURITY.md", "\n\n", " \n\n", "trailing-whitespace"),
        ("SECURITY.md", "# Security", "# Security\n<<<<<<< ours", "merge-conflict"),
    ],
)  # fmt: skip
def test_hooks_find_faults(tmp_path, file, old, new, hook):
    taken = [*(ROOT / ".github").rglob("*"), *(ROOT / f for f in ("action.yml", "CITATION.cff", "SECURITY.md", "pyproject.toml"))]
    for path in (*taken, ROOT / ".pre-commit-config.yaml", ROOT / "onnxfim/errors.py"):
        if path.is_file():
            copy = tmp_path / "checkout" / path.relative_to(ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, copy)
    folder = tmp_path / "checkout"
    if file is not None:
        text = (folder / file).read_text("utf-8")
        assert old in text
        (folder / file).write_bytes(text.replace(old, new, 1).encode())
    for words in (("init", "--quiet"), ("add", "--all")):
        assert run("git", *words, cwd=folder).returncode == 0
    environment = {"PRE_COMMIT_HOME": str(tmp_path / "home"), "GIT_CONFIG_GLOBAL": os.devnull}
    done = run("pre-commit", "run", "--all-files", "--color", "never", *([hook] if hook else []), cwd=folder, env=environment)
    assert (done.returncode == 0) == (hook is None), done.stdout + done.stderr
    if hook:
        assert f"- hook id: {hook}" in done.stdout


# Numbers and commands that stand in several places.


def test_version_has_one_home():
    assert "version" not in PROJECT["project"]
    assert PROJECT["project"]["dynamic"] == ["version"]
    assert PROJECT["tool"]["hatch"]["version"] == {"path": "onnxfim/__init__.py"}
    assert re.findall(r'^__version__ = "(.*)"$', read("onnxfim/__init__.py"), re.MULTILINE) == [onnxfim.__version__]


def test_other_mentions_of_the_version_agree():
    assert load(ROOT / "CITATION.cff")["version"] == onnxfim.__version__
    recipes = re.findall(r"OWNER/onnxfim(?:@|\n    rev: )(\S+)", read("docs/ci.md"))
    assert recipes == [f"v{onnxfim.__version__}"] * 2


def test_licence_and_authors_agree():
    citation = load(ROOT / "CITATION.cff")
    assert citation["license"] == PROJECT["project"]["license"]
    assert citation["authors"] == PROJECT["project"]["authors"]


def shell(path):
    """The commands of the shell blocks of a page, each alone."""
    blocks = re.findall(r"^```sh\n(.*?)^```", read(path), re.DOTALL | re.MULTILINE)
    return [command.strip() for block in blocks for line in block.splitlines() for command in line.split("&&")]


def test_commands_of_the_contributors_are_those_of_the_checks():
    setup, quick, *whole = shell("CONTRIBUTING.md")
    assert (setup, quick) == ("pip install -e '.[dev]'", 'pytest -m "not slow"')
    assert whole == ["pytest", "ruff check .", "ruff format --check .", "mypy"]
    run = [part.strip() for line in read(".ci/run").splitlines() for part in line.split("&&")]
    assert set(whole) <= set(run)


@pytest.mark.parametrize("path", ["SECURITY.md", ".github/ISSUE_TEMPLATE/bug.yml", ".github/ISSUE_TEMPLATE/feature.yml"])
def test_commands_that_pages_name_exist(path):
    for words in re.findall(r"`onnxfim ([^`]+)`", read(path)):
        name, *rest = words.split()
        command = main if name.startswith("-") else main.commands[name]
        options = {o for p in command.params for o in p.opts}
        assert {w for w in (name, *rest) if w.startswith("-")} <= options | {"--version"}, words


def test_bug_form_asks_for_what_is_needed():
    fields = {f["id"]: f["attributes"] for f in load(ROOT / ".github/ISSUE_TEMPLATE/bug.yml")["body"] if "id" in f}
    said = " ".join(str(f) for f in fields.values())
    assert {"version", "doctor", "audit"} <= set(fields)
    assert all(words in said for words in ("onnxfim --version", "onnxfim doctor --json", "-o json="))
