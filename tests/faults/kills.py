"""Kills, terminates and interrupts audits at random moments, and looks at what they leave: ``python -m tests.faults.kills``.

Three parts, each of ``--times`` audits of a sample model, one half by the sketch and one by gradients with a replay:

- SIGKILL: the audit is started again with the same cache, and its JSON must be that of an audit that nobody killed;
- SIGTERM, and SIGINT twice: a JSON must be there, partial, and fit the schema; the exit code is 143 and 130.

It prints where the moments lay, and how long the process lived after the signal: by the clock, and in seconds of a processor, which is
the same on an idle machine and does not depend on what else runs.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import random
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.places import ROOT, SAMPLES

#: Both take 3 to 5 seconds of an idle core, the start apart. The batch is given: it is found by the clock otherwise, and rows round by it.
MODES = {
    "sketch": ("digits_mlp.onnx", "--method", "sketch", "--samples", "16", "--budget", "400", "--batch", "32"),
    "gradient": ("digits_resnet.onnx", "--samples", "24", "--batch", "32", "--replay", "12"),
}
LONGEST = 5.0  # seconds of a processor from a signal to the end
_LIMIT = 300.0


@dataclass
class Started:
    """An audit under way, and what it printed so far, with the time of each line."""

    process: subprocess.Popen
    began: float = field(default_factory=time.monotonic)
    lines: list[tuple[float, str]] = field(default_factory=list)
    reader: threading.Thread | None = None

    def wait_for(self, text: str) -> float:
        """Seconds since the start until a line with this text; raises where the process ends before it."""
        while True:
            if (at := next((t for t, line in self.lines if text in line), None)) is not None:
                return at
            if self.process.poll() is not None:
                raise AssertionError(f"ended before {text!r}:\n" + "\n".join(line for _, line in self.lines))
            time.sleep(0.005)

    def ended(self) -> int:
        """The exit code, once it is over."""
        code = self.process.wait(_LIMIT)
        self.reader.join()
        return code

    def stage(self) -> str:
        """The last stage that was told to be over."""
        done = [line.split(" s  ", 1)[-1].split(":")[0] for _, line in self.lines if ": done in " in line]
        return f"after {done[-1]}" if done else "after opening"


def start(folder: Path, mode: str, *, cache: Path | None, out: str = "a.json") -> Started:
    """An audit of the mode; its JSON goes to ``out`` in the folder."""
    model, *options = MODES[mode]
    kept = ["--no-cache"] if cache is None else ["--cache-dir", str(cache)]
    command = [
        sys.executable, "-m", "onnxfim", "audit", str(SAMPLES / model), "--data", str(SAMPLES / "digits.npz"), "--provider", "cpu",
        *options, *kept, "-v", "-o", f"json={folder / out}",
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment, preexec_fn=_heed_interrupts
    )
    started = Started(process)

    def read() -> None:
        for line in process.stderr:
            started.lines.append((time.monotonic() - started.began, line.rstrip()))

    started.reader = threading.Thread(target=read)
    started.reader.start()
    return started


def _heed_interrupts() -> None:
    """As of a terminal: a shell ignores SIGINT for what it starts in the background."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def scrubbed(path: Path) -> dict:
    """The JSON without what depends on the clock and the cache, and without the paths' own folder."""
    layout = json.loads(path.read_text("utf-8"))
    for part, names in (("run", ("seconds", "times")), ("identity", ("command", "date"))):
        for name in names:
            layout[part].pop(name, None)
    return layout


@dataclass
class Measured:
    """An uninterrupted audit: its JSON, and how long it takes from opening the model to its end."""

    layout: dict
    seconds: float


def uninterrupted(folder: Path, mode: str) -> Measured:
    """An audit that nobody disturbs."""
    run = start(folder, mode, cache=None, out=f"{mode}.json")
    opened = run.wait_for("opened ")
    assert run.ended() in (0, 4), run.lines[-5:]
    return Measured(scrubbed(folder / f"{mode}.json"), time.monotonic() - run.began - opened)


def at_moment(run: Started, seconds: float) -> bool:
    """Wait so long after the model is open; whether the audit still runs then."""
    opened = run.wait_for("opened ")
    time.sleep(max(run.began + opened + seconds - time.monotonic(), 0))
    return run.process.poll() is None


def killed(folder: Path, mode: str, seconds: float, whole: Measured) -> str | None:
    """Where an audit was when it was killed, after its successor was compared with the whole one; None where it was over."""
    with tempfile.TemporaryDirectory(dir=folder) as cache:
        run = start(folder, mode, cache=Path(cache), out="killed.json")
        if not at_moment(run, seconds):
            run.ended()
            (folder / "killed.json").unlink()
            return None
        run.process.kill()
        run.ended()
        if (folder / "killed.json").exists():  # it came after the writing: all of it is there
            assert scrubbed(folder / "killed.json") == whole.layout
            (folder / "killed.json").unlink()
            return None
        again = start(folder, mode, cache=Path(cache), out="again.json")
        assert again.ended() in (0, 4), again.lines[-5:]
    found = scrubbed(folder / "again.json")
    (folder / "again.json").unlink()
    indices = [s["index"] for s in found["samples"]]
    assert len(set(indices)) == len(indices) == len(whole.layout["samples"]), "a sample was lost or doubled"
    different = [key for key in whole.layout if found.get(key) != whole.layout[key]]
    assert found == whole.layout, f"resumed after {run.stage()} it differs in {different}"
    return run.stage()


def spent(pid: int) -> float:
    """Seconds of a processor that a process has taken so far (Linux)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def spent_by_children() -> float:
    """Seconds of a processor that all processes took that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def signalled(folder: Path, mode: str, seconds: float, number: int, times: int) -> tuple[str, float, float, int] | None:
    """Where an audit was when the signal came, the seconds to its end (clock, processor), the samples it kept; None where it was over."""
    from onnxfim.record.audit import Audit

    others = spent_by_children()
    run = start(folder, mode, cache=None, out="ended.json")
    if not at_moment(run, seconds):
        run.ended()
        return None
    where, sent, before = run.stage(), time.monotonic(), spent(run.process.pid)
    run.process.send_signal(number)
    if times > 1:
        time.sleep(0.1)
        run.process.send_signal(number)
    code = run.ended()
    took, processor = time.monotonic() - sent, spent_by_children() - others - before
    path = folder / "ended.json"
    assert path.exists(), run.lines[-5:]
    found = Audit.load(path)
    check_schema(path)
    path.unlink()
    if not found.run.partial:  # all was measured when it came
        # Behind the last line handlers are put back, and a signal ends the process by itself: all is written then.
        assert code in (0, 4, -number, 128 + number), (code, run.lines[-5:])
        assert not any("Traceback" in line for _, line in run.lines)
        return None
    assert code == 128 + number, (code, run.lines[-5:])
    assert found.run.interrupted_by == signal.Signals(number).name
    assert found.verdict == "inconclusive"
    asked = int(MODES[mode][MODES[mode].index("--samples") + 1])
    named = [s.index for s in (*found.samples, *found.skipped)]
    assert sorted(set(named)) == sorted(named), "a sample is told of twice"
    assert len(named) == asked, "a sample is not told of"
    assert not any("Traceback" in line for _, line in run.lines)
    return where, took, processor, len(found.samples)


def check_schema(path: Path) -> None:
    """Hold a JSON to the published schema."""
    import jsonschema

    from onnxfim.record.schema import audit_schema

    jsonschema.validate(json.loads(path.read_text("utf-8")), audit_schema())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--part", choices=("kill", "term", "int"), nargs="*", default=("kill", "term", "int"))
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    rng = random.Random(given.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        whole = {mode: uninterrupted(folder, mode) for mode in MODES}
        print("seconds from opening to the end:", {mode: round(m.seconds, 1) for mode, m in whole.items()}, flush=True)

        def moments():
            """Modes in turn with random moments, until enough were met."""
            while True:
                for mode in MODES:
                    yield mode, rng.uniform(0.0, whole[mode].seconds)

        where = collections.Counter()
        for mode, seconds in moments() if "kill" in given.part else ():
            if (stage := killed(folder, mode, seconds, whole[mode])) is not None:
                where[f"{mode}, {stage}"] += 1
                print(f"  killed at {seconds:.1f} s, {mode}, {stage}: resumed, equal", flush=True)
            if sum(where.values()) == given.times:
                break
        print(f"SIGKILL: {sum(where.values())} resumed audits are equal to the whole one;", dict(where), flush=True)
        parts = {"term": ("SIGTERM", signal.SIGTERM, 1), "int": ("SIGINT twice", signal.SIGINT, 2)}
        for label, number, times in (parts[p] for p in given.part if p in parts):
            where, took, processor, kept = collections.Counter(), [], [], []
            for mode, seconds in moments():
                if (met := signalled(folder, mode, seconds, number, times)) is not None:
                    where[f"{mode}, {met[0]}"] += 1
                    took.append(met[1])
                    processor.append(met[2])
                    kept.append(met[3])
                    print(
                        f"  {label} at {seconds:.1f} s, {mode}, {met[0]}: {met[1]:.2f} s, {met[2]:.2f} s of a processor, {met[3]} samples",
                        flush=True,
                    )
                if len(took) == given.times:
                    break
            clock, work = (f"{min(v):.2f}, {statistics.median(v):.2f}, {max(v):.2f} s" for v in (took, processor))
            figures = f"{clock} by the clock and {work} of a processor (min, median, max)"
            print(
                f"{label}: {given.times} audits ended in {figures}, with {min(kept)} to {max(kept)} samples;",
                dict(where),
                flush=True,
            )
            assert max(processor) < LONGEST, processor


if __name__ == "__main__":
    main()
