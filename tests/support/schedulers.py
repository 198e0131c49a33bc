"""Schedulers that are not here, made up as far as the recipes of docs/howto/many-machines.md need them: their shell, their variables, their files."""

from __future__ import annotations

import fnmatch
import json
import os
import re
import shlex
import shutil
import stat
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from onnxfim.fleet.shard_of import SCHEDULERS
from tests.support.places import ROOT
from tests.support.recipes import recipes

PAGE = "howto/many-machines.md"

# `sbatch`: runs each job at once, in the order of submission, and keeps how it ended; what it does not know is an error.
_SBATCH = r"""
import json, os, subprocess, sys
from pathlib import Path

state, words = Path(os.environ["HOST_STATE"]), sys.argv[1:]
jobs = json.loads((state / "jobs.json").read_text("utf-8")) if (state / "jobs.json").exists() else {}
options, given = {}, []
while words and words[0].startswith("--"):
    name, _, value = words.pop(0)[2:].partition("=")
    given.append(name)
    options[name] = value
unknown = set(given) - {"parsable", "array", "dependency", "kill-on-invalid-dep", "export"}
if unknown:
    sys.exit(f"sbatch: unrecognized option {sorted(unknown)}")
script, *arguments = words
for line in Path(script).read_text("utf-8").splitlines()[1:]:
    if not line.startswith("#SBATCH"):
        break  # as Slurm, which reads no further than the first line that is none of its own
    assert line.split()[1].startswith("--"), line
number = str(1000 + len(jobs))
ready = True
if options.get("dependency"):
    kind, _, other = options["dependency"].partition(":")
    assert kind in ("afterok", "afterany") and other in jobs, options
    ready = kind == "afterany" or jobs[other] == "done"
    if not ready:
        assert options.get("kill-on-invalid-dep") == "yes", "the job would wait for ever"
tasks = [None]
if "array" in options:
    first, _, last = options["array"].partition("-")
    tasks = list(range(int(first), int(last or first) + 1))
ended = "done" if ready else "cancelled"
for task in tasks if ready else []:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("SLURM_")}
    for pair in options.get("export", "ALL").split(","):
        if pair != "ALL":
            name, _, value = pair.partition("=")
            environment[name] = value
    if task is not None:
        environment |= {
            "SLURM_ARRAY_JOB_ID": number, "SLURM_ARRAY_TASK_ID": str(task), "SLURM_ARRAY_TASK_COUNT": str(len(tasks)),
            "SLURM_ARRAY_TASK_MIN": str(tasks[0]), "SLURM_ARRAY_TASK_MAX": str(tasks[-1]), "SLURM_ARRAY_TASK_STEP": "1",
        }
        if (state / f"fail-{task}").exists():
            (state / f"fail-{task}").unlink()
            ended = "failed"
            continue
    done = subprocess.run(["bash", script, *arguments], env=environment, capture_output=True, text=True)
    with (state / "log").open("a") as log:
        log.write(f"{number} {arguments} {task} {done.returncode}\n{done.stdout}{done.stderr}")
    if done.returncode:
        ended = "failed"
jobs[number] = ended
(state / "jobs.json").write_text(json.dumps(jobs), "utf-8")
print(f"{number};cluster" if "parsable" in options else f"Submitted batch job {number}")
"""


@dataclass(frozen=True)
class Step:
    """How a step of a job ended."""

    code: int
    output: str


@dataclass
class Machines:
    """A folder with ``model.onnx`` and ``samples.npz``, and the programs of a recipe's host in the path.

    Attributes:
        folder: Where the recipe runs.
        state: What the host keeps.
        variables: Of the environment, beside those that no scheduler sets.
    """

    folder: Path
    state: Path
    variables: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        programs = self.state / "bin"
        programs.mkdir(parents=True, exist_ok=True)
        (self.state / "sbatch.py").write_text(_SBATCH, "utf-8")
        texts = {
            "onnxfim": f'#!/bin/sh\nexec "{sys.executable}" -m onnxfim "$@"\n',
            "sbatch": f'#!/bin/sh\nexec "{sys.executable}" "{self.state}/sbatch.py" "$@"\n',
            "pip": "#!/bin/sh\nexit 0\n",
        }
        for name, text in texts.items():
            (programs / name).write_text(text, "utf-8")
            (programs / name).chmod(0o755 | stat.S_IXUSR)
        hosts = ("ONNXFIM_", "CI_", "GITHUB_", *(s.index for s in SCHEDULERS), *(s.count for s in SCHEDULERS if s.count))
        self.variables = {
            **{k: v for k, v in os.environ.items() if not k.startswith(hosts)},
            "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", "HOST_STATE": str(self.state),
            "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]),
            "XDG_CACHE_HOME": str(self.state / "cache"), **self.variables,
        }  # fmt: skip

    def shell(self, text: str, variables: dict[str, str] | None = None, *, where: Path | None = None) -> Step:
        """Run a shell's text as CI hosts do: it ends at the first command that fails."""
        script = self.state / "step.sh"
        script.write_text(text, "utf-8")
        done = subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", str(script)], cwd=where or self.folder,
            env={**self.variables, **(variables or {})}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        return Step(done.returncode, done.stdout + done.stderr)

    @property
    def log(self) -> str:
        """What the jobs of Slurm printed."""
        path = self.state / "log"
        return path.read_text("utf-8") if path.exists() else ""


# GitHub and GitLab: each job in a checkout of its own, with what others left as artefacts.


@dataclass
class Pipeline:
    """A host of CI that runs the jobs of a recipe, each in a copy of the checkout; artefacts go from one to the next.

    Attributes:
        machines: Holds the checkout and the programs.
        artefacts: By name, the folder of each that was uploaded.
    """

    machines: Machines
    artefacts: dict[str, Path] = field(default_factory=dict)
    summary: str = ""

    def checkout(self, name: str) -> Path:
        """A fresh copy for a job."""
        where = self.machines.state / "jobs" / name
        shutil.rmtree(where, ignore_errors=True)
        shutil.copytree(self.machines.folder, where)
        return where

    def keep(self, name: str, where: Path, patterns: list[str], *, common: bool) -> int:
        """Take files as an artefact; how many. ``common``: below the folder that all of them lie in, as GitHub does."""
        files = [
            p for p in where.rglob("*")
            if p.is_file()
            and any(fnmatch.fnmatch(rel := p.relative_to(where).as_posix(), pat) or rel.startswith(f"{pat}/") for pat in patterns)
        ]  # fmt: skip
        kept = self.machines.state / "artefacts" / name
        shutil.rmtree(kept, ignore_errors=True)
        root = Path(os.path.commonpath([p.parent for p in files])) if files and common else where
        for path in files:
            target = kept / path.relative_to(root)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
        if files:
            self.artefacts[name] = kept
        return len(files)

    def github(self, *, failing: tuple[int, ...] = ()) -> dict[str, Step]:
        """All jobs of the matrix recipe in their order; shards of these numbers fail before they begin."""
        jobs = yaml.safe_load(recipes(PAGE)["github-matrix"])["jobs"]
        ended: dict[str, Step] = {"plan": self._github_job("plan", jobs["plan"], {})}
        matrix = jobs["shard"]["strategy"]["matrix"]["shard"]
        for shard in matrix if ended["plan"].code == 0 else []:
            values = {"matrix.shard": str(shard), "strategy.job-total": str(len(matrix))}
            ended[f"shard-{shard}"] = Step(1, "") if shard in failing else self._github_job(f"shard-{shard}", jobs["shard"], values)
        assert jobs["merge"]["if"] == "${{ !cancelled() }}", "the merge comes whatever became of the shards"
        ended["merge"] = self._github_job("merge", jobs["merge"], {})
        return ended

    def _github_job(self, name: str, job: dict[str, Any], values: dict[str, str]) -> Step:
        where = self.checkout(name)
        summary = self.machines.state / "summary"
        summary.write_text("", "utf-8")
        code, told = 0, ""
        for step in job["steps"]:
            always = step.get("if") == "always()"
            assert always or "if" not in step, step
            if code and not always:
                continue
            action, given = step.get("uses", "").partition("@")[0], step.get("with", {})
            if action in ("actions/checkout", "actions/setup-python"):
                continue
            if action == "actions/upload-artifact":
                found = self.keep(filled(given["name"], values), where, [given["path"]], common=True)
                if not found and given.get("if-no-files-found") != "ignore":
                    told += "no files were found to upload"  # GitHub warns
            elif action == "actions/download-artifact":
                target = where / given.get("path", ".")
                names = [n for n in self.artefacts if n == given.get("name") or fnmatch.fnmatch(n, given.get("pattern", "\0"))]
                assert names or "pattern" in given, f"no artefact {given}"
                assert len(names) == 1 or given.get("merge-multiple"), "several artefacts lie in folders of their own"
                for artefact in names:
                    shutil.copytree(self.artefacts[artefact], target, dirs_exist_ok=True)
            else:
                assert not action, f"{action}: not known here"
                env = {k: filled(v, values) for k, v in step.get("env", {}).items()}
                done = self.machines.shell(step["run"], {**env, "GITHUB_STEP_SUMMARY": str(summary)}, where=where)
                code, told = code or done.code, told + done.output
        self.summary = summary.read_text("utf-8")
        return Step(code, told)

    def gitlab(self, *, failing: tuple[int, ...] = ()) -> dict[str, Step]:
        """All jobs of the parallel recipe in their order; shards of these numbers fail before they begin."""
        record = yaml.safe_load(recipes(PAGE)["gitlab-parallel"])
        before, ended, failed = record["default"]["before_script"], {}, False
        for stage in record["stages"]:
            jobs = {n: j for n, j in record.items() if isinstance(j, dict) and j.get("stage") == stage}
            fell = False
            for name, job in jobs.items():
                if failed and job.get("when") != "always":
                    continue
                n = job.get("parallel", 1)
                for i in range(1, n + 1):
                    told = {"CI_NODE_TOTAL": str(n), **({"CI_NODE_INDEX": str(i)} if "parallel" in job else {})}
                    whole = f"{name}-{i}" if n > 1 else name
                    where = self.checkout(whole)
                    for kept in self.artefacts.values():
                        shutil.copytree(kept, where, dirs_exist_ok=True)
                    lost = name == "shard" and i in failing
                    done = Step(1, "") if lost else self.machines.shell("\n".join(before + job["script"]), told, where=where)
                    ended[whole] = done
                    rule = job["artifacts"]
                    if done.code == 0 or rule.get("when") == "always":
                        self.keep(whole, where, rule["paths"], common=False)
                    fell |= done.code != 0
            failed |= fell
        return ended


def filled(text: str, values: dict[str, str]) -> str:
    """A text with its expressions replaced by these values."""
    return re.sub(r"\$\{\{ (.*?) \}\}", lambda m: values[m[1]], str(text))


# Kubernetes.


def pods(manifest: dict[str, Any], machines: Machines, roots: dict[str, Path]) -> list[Step]:
    """Run the container of every index of an Indexed Job here, each volume a folder.

    Args:
        manifest: The Job.
        machines: Whose programs and environment the containers have.
        roots: The folder of each volume, by its name.
    """
    spec = manifest["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    mounts = {m["mountPath"]: roots[m["name"]] for m in container["volumeMounts"]}

    def placed(text: str) -> str:
        """A text whose paths lie in the mounts."""
        known = "|".join(map(re.escape, sorted(mounts, key=len, reverse=True)))
        return re.sub(rf"(?<![\w.])({known})(?=/|$)", lambda m: str(mounts[m[1]]), text)

    env = {e["name"]: placed(e["value"]) for e in container["env"]}
    command = shlex.join(placed(word) for word in container["command"])
    return [
        machines.shell(command, {**env, "JOB_COMPLETION_INDEX": str(i)}, where=Path(placed(container["workingDir"])))
        for i in range(manifest["spec"]["completions"])
    ]


def scrubbed(path: Path) -> dict[str, Any]:
    """An audit's JSON without what depends on the clock, and without the words of the command that wrote it."""
    layout: dict[str, Any] = json.loads(path.read_text("utf-8"))
    layout["identity"].pop("command", None)
    for name in ("seconds", "times"):
        layout["run"].pop(name, None)
    return layout
