"""`python -m tests.fuzz`: runs cases of all families, or of those named, and ends with 1 where any failed."""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"  # before NumPy comes: a fork loses threads

import argparse
import collections
import dataclasses
import itertools
import json
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from tests.fuzz import harness
from tests.fuzz.child import OWN, warm
from tests.fuzz.harness import Case, Outcome, Runner, Task

_KEPT_EACH = 3  # folders kept of failures from one frame
_DESCRIPTION = "case.json"


def main(argv: Sequence[str] | None = None) -> int:
    """Run what is asked for; the exit code."""
    asked = _parser().parse_args(argv)
    known = harness.names()
    unknown = [name for name in asked.family if name not in known]
    if unknown:
        print(f"no family {', '.join(unknown)}; there are {', '.join(known)}", file=sys.stderr)
        return 2
    warm()
    with tempfile.TemporaryDirectory(prefix="onnxfim-fuzz-") as work:
        if asked.again:
            return _again(asked.again, Runner(Path(work)))
        return _many(asked, asked.family or known, Path(work))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m tests.fuzz", description=__doc__)
    parser.add_argument("--family", action="append", default=[], metavar="NAME", help="only this family; repeatable")
    parser.add_argument("--cases", type=int, help="end after so many cases")
    parser.add_argument("--seconds", type=float, help="end after so many seconds")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first case of each family")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--out", type=Path, help="write a line of JSON for each case to this file")
    parser.add_argument("--keep", type=Path, help="keep failed cases below this folder  [default: a new temporary one]")
    parser.add_argument(
        "--again", action="append", default=[], metavar="FOLDER|FAMILY-SEED-NUMBER", help="run a kept or named case again"
    )
    return parser


def _tasks(families: Sequence[str], seed: int, first: int) -> Iterator[Task]:
    for number in itertools.count(first):
        for name in families:
            yield Task(name, seed, number)


def _many(asked: argparse.Namespace, families: Sequence[str], work: Path) -> int:
    """Cases of all families in turn, until the number or the time is reached."""
    if asked.cases is None and asked.seconds is None:
        asked.cases = 1000
    tasks = itertools.islice(_tasks(families, asked.seed, asked.first), asked.cases)
    start = time.monotonic()
    tally = Tally(asked.keep, asked.out)
    context = get_context("fork")
    with ProcessPoolExecutor(asked.jobs, mp_context=context, initializer=_begin, initargs=(work,)) as pool:
        running: set[Future[tuple[Outcome, str | None]]] = set()
        more = True
        while more or running:
            while more and len(running) < 2 * asked.jobs:
                late = asked.seconds is not None and time.monotonic() - start > asked.seconds
                task = None if late else next(tasks, None)
                more = task is not None
                if task is not None:
                    running.add(pool.submit(_one, task))
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                tally.add(*future.result())
    tally.close()
    print(tally.summary(time.monotonic() - start, asked.jobs))
    return 1 if tally.failures else 0


_runner: Runner | None = None


def _begin(work: Path) -> None:
    global _runner  # a worker has one
    _runner = Runner(work / str(os.getpid()))


def _one(task: Task) -> tuple[Outcome, str | None]:
    """One case, and where its folder stays for the parent to keep, where it failed."""
    assert _runner is not None
    outcome = _runner.run(task)
    if outcome.problems or outcome.findings:
        return outcome, str(_runner.folder(task))
    _runner.drop(task)
    return outcome, None


class Tally:
    """Counts outcomes, keeps a few of each failure, and tells of all at the end."""

    def __init__(self, keep: Path | None, out: Path | None) -> None:
        self._keep = keep
        self._out = out.open("w") if out else None
        self._codes: collections.Counter[str] = collections.Counter()
        self._families: dict[str, list[tuple[float, float]]] = collections.defaultdict(list)
        self._slowest: list[tuple[float, str, str]] = []
        self._remarks: collections.Counter[str] = collections.Counter()
        self.failures: dict[str, list[Outcome]] = collections.defaultdict(list)
        self.findings: dict[str, list[Outcome]] = collections.defaultdict(list)

    def add(self, outcome: Outcome, folder: str | None) -> None:
        ended, task = outcome.ended, outcome.task
        how = "hung" if ended.hung else f"signal {ended.signal}" if ended.code is None else f"exit {ended.code}"
        self._codes[how] += 1
        self._families[task.family].append((ended.seconds, ended.processor))
        self._slowest = sorted([*self._slowest, (ended.seconds, task.name, outcome.case.note)])[-5:]
        self._remarks.update(remark.split(": ", 1)[-1][:100] for remark in outcome.remarks[:1])
        groups = []
        if outcome.problems:
            groups.append((self.failures, f"{' '.join(outcome.problems[0].split(':')[0].split()[:6])} | {outcome.frame}"))
        groups += [(self.findings, finding[:160]) for finding in outcome.findings]
        for group, key in groups:
            kept = dataclasses.replace(outcome, kept=_kept(outcome, Path(folder), self._folder())) \
                if folder and len(group[key]) < _KEPT_EACH else outcome  # fmt: skip
            group[key].append(kept)
        if folder:
            shutil.rmtree(folder, ignore_errors=True)
        if self._out:
            self._out.write(json.dumps(told(outcome)) + "\n")

    def _folder(self) -> Path:
        if self._keep is None:
            self._keep = Path(tempfile.mkdtemp(prefix="onnxfim-fuzz-kept-"))
        return self._keep

    def close(self) -> None:
        if self._out:
            self._out.close()

    def summary(self, seconds: float, jobs: int) -> str:
        cases = sum(self._codes.values())
        lines = [f"{cases} cases in {seconds:.0f} s with {jobs} job(s): {cases / max(seconds, 1e-9):.1f} a second",
                 "ended: " + ", ".join(f"{how} {n}" for how, n in sorted(self._codes.items()))]  # fmt: skip
        for name, each in sorted(self._families.items()):
            clock, processor = zip(*each, strict=True)
            lines.append(
                f"  {name}: {len(each)} cases, {sum(processor) / len(each):.3f} s of a processor each, at most {max(clock):.1f} s"
            )
        lines += [f"slowest: {s:.1f} s {name}: {note}" for s, name, note in reversed(self._slowest)]
        lines += [f"remark ({n}): {text}" for text, n in self._remarks.most_common(8)]
        for title, group in (("stage-failed", self.findings), ("FAILED", self.failures)):
            for key, outcomes in sorted(group.items(), key=lambda item: -len(item[1])):
                lines.append(f"{title} ({len(outcomes)}): {key}")
                lines += [f"    {o.task.name}: {o.case.note[:200]}\n      {' '.join(o.case.argv)[:300]}\n      "
                          + "\n      ".join(p[:300] for p in o.problems[:4]) + f"\n      kept: {o.kept}" for o in outcomes[:_KEPT_EACH]]  # fmt: skip
        lines.append(f"{sum(map(len, self.failures.values()))} failures of {len(self.failures)} kinds, "
                     f"{sum(map(len, self.findings.values()))} stage-failed findings of {len(self.findings)} kinds")  # fmt: skip
        return "\n".join(lines)


def told(outcome: Outcome) -> dict[str, Any]:
    """An outcome as a line of JSON says it."""
    ended = outcome.ended
    return {
        "family": outcome.task.family, "seed": outcome.task.seed, "number": outcome.task.number, "note": outcome.case.note,
        "argv": list(outcome.case.argv), "code": ended.code, "signal": ended.signal, "hung": ended.hung, "seconds": round(ended.seconds, 3),
        "processor": round(ended.processor, 3),
        "problems": list(outcome.problems), "frame": outcome.frame, "findings": list(outcome.findings), "remarks": list(outcome.remarks),
        "stderr": ended.stderr.decode("utf-8", "backslashreplace")[-2000:],
    }  # fmt: skip


def _kept(outcome: Outcome, folder: Path, keep: Path) -> str:
    """The folder that now holds the failed case: its files, what it printed, and what it was."""
    target = keep / outcome.task.name
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    shutil.copytree(folder, target / "files", symlinks=True, ignore=_own_or_special)
    (target / _DESCRIPTION).write_text(json.dumps(told(outcome), indent=1), "utf-8")
    (target / "stdout").write_bytes(outcome.ended.stdout)
    (target / "stderr").write_bytes(outcome.ended.stderr)
    return str(target)


def _own_or_special(folder: str, entries: list[str]) -> list[str]:
    """What is not copied: the harness's own folder, and FIFOs, devices and sockets."""
    paths = ((name, os.lstat(os.path.join(folder, name)).st_mode) for name in entries)
    return [n for n, mode in paths if n == OWN or not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISLNK(mode))]


def _again(named: Sequence[str], runner: Runner) -> int:
    """Kept or named cases, run again with all that they print."""
    failed = 0
    for name in named:
        where = Path(name) / _DESCRIPTION
        if where.is_file():
            record = json.loads(where.read_text("utf-8"))
            task = Task(record["family"], record["seed"], record["number"])
            folder = runner.adopt(task, Path(name) / "files")
            outcome = runner.run_case(task, Case(tuple(record["argv"]), record["note"]), folder)
        else:
            family, seed, number = name.rsplit("-", 2)
            outcome = runner.run(Task(family, int(seed), int(number)))
        sys.stdout.write(f"== {outcome.task.name}: {outcome.case.note}\n   onnxfim {' '.join(outcome.case.argv)}\n")
        sys.stdout.write(
            outcome.ended.stdout.decode("utf-8", "backslashreplace") + outcome.ended.stderr.decode("utf-8", "backslashreplace")
        )
        print(f"-- exit {outcome.ended.code}, {outcome.ended.seconds:.1f} s; {len(outcome.problems)} problems")
        print("".join(f"   {p}\n" for p in (*outcome.problems, *outcome.findings, outcome.frame) if p), end="")
        failed += bool(outcome.problems)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
