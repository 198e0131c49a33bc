"""The recipes of the documentation, and those of docs/ci.md run as far as they can be without their hosts: their shell, with the hosts' programs made up."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.support.places import ROOT

MARK = "<!-- onnxfim -->"
_RECIPE = re.compile(r"^<!-- recipe: ([\w-]+) -->\n```\w+\n(.*?)^```", re.DOTALL | re.MULTILINE)
_EXPRESSION = re.compile(r"\$\{\{ (.*?) \}\}")

# `gh` and `curl` in one: what the recipes ask of a host, answered from a folder. An unknown question is an error.
_HOST = r"""
import json, os, shutil, sys
from pathlib import Path

state, (program, *words) = Path(os.environ["HOST_STATE"]), [Path(sys.argv[1]).name, *sys.argv[2:]]
after = lambda *names: next((words[i + 1] for i, w in enumerate(words[:-1]) if w in names), None)
notes = json.loads((state / "notes.json").read_text("utf-8"))
baseline = state / "report.json"
if (state / "down").exists():
    sys.exit("the host does not answer")

def save(number, body):
    if (state / "read-only").exists():
        sys.exit("HTTP 403: Resource not accessible by integration")
    if number is None:
        notes.append({"id": 100 + len(notes), "body": body, "user": {"id": 7, "type": "Bot"}, "author": {"id": 7}})
    else:
        (one,) = [n for n in notes if n["id"] == int(number)]
        one["body"] = body
    (state / "notes.json").write_text(json.dumps(notes), "utf-8")

if program == "gh":
    if words[:2] == ["run", "list"]:
        assert after("--event") == "push" and after("--status") == "success" and after("--branch") == "main", words
        assert after("--workflow") == "robustness.yml", words
        if (state / "ran").exists():
            print(42)
    elif words[:2] == ["run", "download"]:
        folder = Path(after("--dir"))
        folder.mkdir(parents=True)
        for name in ("report.json", "comment.md"):
            if (state / name).exists():
                shutil.copy(state / name, folder)
        if not list(folder.iterdir()):
            sys.exit("no valid artifacts found to download")
    elif words[:2] == ["pr", "view"]:
        print(5)
    elif words[0] == "api":
        body = next((w.removeprefix("body=@") for w in words if w.startswith("body=@")), None)
        (path,) = [w for w in words if w.startswith("repos/OWNER/MODEL/issues/")]
        if body is None:
            assert path.endswith("/5/comments"), words
            mine = [n["id"] for n in notes if n["user"]["type"] == "Bot" and n["body"].startswith("<!-- onnxfim -->")]
            print("\n".join(map(str, mine)))
        else:
            number = path.rpartition("/")[2] if after("--method") == "PATCH" else None
            assert number is not None or path.endswith("/5/comments"), words
            save(number, Path(body).read_text("utf-8"))
    else:
        sys.exit(f"gh {words}: not known here")
else:
    (url,) = [w for w in words if w.startswith("https://")]
    method, answer, status = after("--request") or "GET", b"", 200
    if "/jobs/artifacts/main/raw/onnxfim-reports/report.json?job=robustness" in url:
        status = 200 if baseline.exists() else 404
        answer = baseline.read_bytes() if baseline.exists() else b"{}"
    elif url.endswith("/user"):
        answer = b'{"id": 7}'
    elif method == "GET" and ("/notes?" in url or "/comments?" in url):
        answer = json.dumps(notes).encode()
    elif method in ("POST", "PUT", "PATCH"):
        text, data = after("--data-urlencode"), after("--data")
        body = Path(text.removeprefix("body@")).read_text("utf-8") if text else json.loads(Path(data[1:]).read_text("utf-8"))["body"]
        save(None if method == "POST" else url.rpartition("/")[2], body)
    else:
        sys.exit(f"curl {words}: not known here")
    Path(after("--output")).write_bytes(answer)
    if after("--write-out"):
        print(status, end="")
"""

# `python -m venv` makes a folder whose activation does nothing; all else is this Python.
_PYTHON = """#!/bin/sh
if [ "$1 $2" = "-m venv" ]; then mkdir -p "$3/bin" && : > "$3/bin/activate" && exit 0; fi
exec "{python}" "$@"
"""


def recipes(page: str = "ci.md") -> dict[str, str]:
    """The recipes of a page by name."""
    return {m[1]: m[2] for m in _RECIPE.finditer((ROOT / "docs" / page).read_text("utf-8"))}


@dataclass(frozen=True)
class Done:
    """How a job ended: its code, what it printed, and its summary (of a host that has one)."""

    code: int
    output: str
    summary: str = ""
    outputs: dict[str, str] = field(default_factory=dict)


@dataclass
class Host:
    """A host of which `folder` is the checkout, with ``model.onnx`` and ``samples.npz`` in it.

    Attributes:
        folder: Where jobs run.
        state: What the host holds: ``notes.json``, ``report.json`` of main's artefact; files ``down``, ``read-only``, ``ran``.
        onnxfim: What ``onnxfim`` and ``python -m onnxfim`` are; this checkout unless told.
    """

    folder: Path
    state: Path
    onnxfim: str = ""
    variables: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.state.mkdir(parents=True, exist_ok=True)
        (self.state / "notes.json").write_text(
            json.dumps([_note(1, "User", "hello"), _note(2, "User", f"{MARK} not mine")]), "utf-8"
        )
        programs = self.state / "bin"
        programs.mkdir(exist_ok=True)
        (self.state / "host.py").write_text(_HOST, "utf-8")
        texts = {name: f'#!/bin/sh\nexec "{sys.executable}" "{self.state}/host.py" {name} "$@"\n' for name in ("gh", "curl")}
        texts["onnxfim"] = self.onnxfim or f'#!/bin/sh\nexec "{sys.executable}" -m onnxfim "$@"\n'
        texts |= {"python": _PYTHON.format(python=sys.executable), "pip": "#!/bin/sh\nexit 0\n"}
        if self.onnxfim:
            texts["python"] = texts["python"].replace(
                "exec", 'if [ "$1 $2" = "-m onnxfim" ]; then shift 2; exec onnxfim "$@"; fi\nexec'
            )
        for name, text in texts.items():
            (programs / name).write_text(text, "utf-8")
            (programs / name).chmod(0o755 | stat.S_IXUSR)
        path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        self.variables = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("ONNXFIM_", "CI_", "GITHUB_"))},
            "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": path, "HOST_STATE": str(self.state),
            "XDG_CACHE_HOME": str(self.state / "cache"), **self.variables,
        }  # fmt: skip

    @property
    def comments(self) -> list[str]:
        """What was written by the recipe, in order."""
        notes = json.loads((self.state / "notes.json").read_text("utf-8"))
        return [n["body"] for n in notes if n["user"]["type"] == "Bot"]

    def shell(self, text: str, variables: dict[str, str], *options: str, where: str = ".") -> subprocess.CompletedProcess[str]:
        """Run a shell's text in the checkout."""
        script = self.state / "step.sh"
        script.write_text(text, "utf-8")
        return subprocess.run(
            ["bash", "--noprofile", "--norc", *options, str(script)], cwd=self.folder / where, env={**self.variables, **variables},
            capture_output=True, text=True, check=False,
        )  # fmt: skip

    # The three hosts.

    def github(self, *, pull: bool, **inputs: str) -> Done:
        """The audit's job of the GitHub recipe: the steps of the action, with the recipe's inputs and ``inputs`` over them."""
        record = yaml.safe_load(recipes()["github"])
        (use,) = [s for s in record["jobs"]["audit"]["steps"] if s["uses"].startswith("OWNER/onnxfim@")]
        return self.action(pull=pull, **{**use["with"], "install": "skip", **inputs})

    def action(self, *, pull: bool, **inputs: str) -> Done:
        """The action's own steps."""
        action = yaml.safe_load((ROOT / "action.yml").read_text("utf-8"))
        given = {name: str(spec.get("default", "")) for name, spec in action["inputs"].items()} | inputs
        files = {name: self.state / name.lower() for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY")}
        files["GITHUB_STEP_SUMMARY"].write_text("", "utf-8")
        outputs: dict[str, dict[str, str]] = {}
        event = "pull_request" if pull else "push"
        common = {
            **{k: str(v) for k, v in files.items()}, "GITHUB_REPOSITORY": "OWNER/MODEL", "GITHUB_EVENT_NAME": event,
            "GITHUB_REF_NAME": "5/merge" if pull else "main", "RUNNER_TEMP": str(self.state / "temp"),
            "GITHUB_WORKFLOW_REF": "OWNER/MODEL/.github/workflows/robustness.yml@refs/pull/5/merge",
        }  # fmt: skip

        def value(name: str) -> str:
            kind, _, rest = name.strip().partition(".")
            if kind == "inputs":
                return given[rest]
            if kind == "steps":
                step, _, output = rest.partition(".outputs.")
                return outputs.get(step, {}).get(output, "")
            return {
                "github.event.pull_request.number": "5" if pull else "",
                "github.action_path": str(ROOT),
                "github.token": "token",
                "''": "",
            }[name.strip()]

        def filled(text: str) -> str:
            def evaluated(match: re.Match[str]) -> str:
                optional = "inputs.baseline == '' && "
                if match[1].startswith(optional):
                    return "" if given["baseline"] else filled("${{ " + match[1].removeprefix(optional) + " }}")
                return next((v for part in match[1].split("||") if (v := value(part))), "")

            return _EXPRESSION.sub(evaluated, str(text))

        code, told = 0, ""
        for step in action["runs"]["steps"]:
            condition = step.get("if", "")
            assert condition in ("", "${{ always() && inputs.comment == 'true' }}"), condition
            if (code and not condition) or (condition and given["comment"] != "true"):
                continue
            files["GITHUB_OUTPUT"].write_text("", "utf-8")
            env = {k: filled(v) for k, v in step.get("env", {}).items()}
            where = filled(step.get("working-directory", "."))
            done = self.shell(step["run"], {**common, **env}, "-eo", "pipefail", where=where)
            lines = files["GITHUB_OUTPUT"].read_text("utf-8").splitlines()
            outputs[step.get("id", "")] = dict(line.split("=", 1) for line in lines)
            told += done.stdout + done.stderr
            code = code or done.returncode
        return Done(code, told, files["GITHUB_STEP_SUMMARY"].read_text("utf-8"), outputs.get("audit", {}))

    def gitlab(self, *, pull: bool) -> Done:
        """The job of the GitLab recipe, with what follows it."""
        job = yaml.safe_load(recipes()["gitlab"])["robustness"]
        set_ = {
            **job["variables"], "CI_API_V4_URL": "https://gitlab.example/api/v4", "CI_PROJECT_ID": "3", "CI_DEFAULT_BRANCH": "main",
            "CI_JOB_TOKEN": "job", "CI_JOB_NAME": "robustness", "ROBUSTNESS_TOKEN": "project",
            **({"CI_MERGE_REQUEST_IID": "5"} if pull else {}),
        }  # fmt: skip
        done = self.shell("\n".join(job["script"]), set_, "-eo", "pipefail")
        after = self.shell("\n".join(job["after_script"]), set_, "-eo", "pipefail")
        return Done(done.returncode, done.stdout + done.stderr + after.stdout + after.stderr)

    def jenkins(self, *, pull: bool) -> Done:
        """The shell steps of the Jenkins recipe, with the artefact copied as the plug-in does."""
        text = recipes()["jenkins"]
        steps = re.findall(r"sh (?:returnStatus: true, script: )?(?:'''(.*?)'''|'([^'\n]*)')", text, re.DOTALL)
        clean, audit, comment = [(long or short).replace("\\\n", "") for long, short in steps]  # as Groovy reads such a string
        set_ = {"TOKEN": "token", **({"CHANGE_ID": "5"} if pull else {})}
        assert self.shell(clean, set_, "-e").returncode == 0
        if pull and (self.state / "report.json").exists():
            (self.folder / "baseline").mkdir()
            (self.folder / "baseline" / "report.json").write_bytes((self.state / "report.json").read_bytes())
        done = self.shell(audit, set_, "-e")
        after = self.shell(comment, set_, "-e") if pull else done
        return Done(done.returncode, done.stdout + done.stderr + after.stderr)

    def run(self, name: str, *, pull: bool) -> Done:
        """The job of that host."""
        return {"github": self.github, "gitlab": self.gitlab, "jenkins": self.jenkins}[name](pull=pull)

    def keep_baseline(self) -> None:
        """What main's job leaves as its artefact."""
        (self.state / "report.json").write_bytes((self.folder / "onnxfim-reports" / "report.json").read_bytes())
        (self.state / "ran").touch()


def _note(number: int, kind: str, body: str) -> dict[str, Any]:
    """A note that somebody else wrote."""
    return {"id": number, "body": body, "user": {"id": number, "type": kind}, "author": {"id": number}}
