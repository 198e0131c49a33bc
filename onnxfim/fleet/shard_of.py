"""Which shard of how many a process measures: as it is told, or as its scheduler's environment says."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from onnxfim.errors import SettingsError
from onnxfim.record.foreign_text import clipped

T = TypeVar("T")

_NUMBER = re.compile(r"\d{1,9}", re.ASCII)
_SHARD = re.compile(r"(\d{1,9})/(\d{1,9})", re.ASCII)
_AUTO = re.compile(r"auto(?:/(\d{1,9}))?", re.ASCII)
_MEND = "tell the shard itself: --shard i/n, with i from 1 to n"


@dataclass(frozen=True)
class ShardIndex:
    """Shard i of n: the samples at positions i, i + n, i + 2n, … of those that are audited.

    Attributes:
        i: Which, from 1 to n.
        n: Of how many.

    Raises:
        SettingsError: i is none of 1 to n.
    """

    i: int
    n: int

    def __post_init__(self) -> None:
        if not 1 <= self.i <= self.n:
            raise SettingsError(f"--shard {self}: i/n with i from 1 to n was expected, as in --shard 1/{max(self.n, 1)}.")

    def __str__(self) -> str:
        return f"{self.i}/{self.n}"

    @property
    def file_name(self) -> str:
        """What its file is called where no other name is given."""
        return f"shard-{self.i}-of-{self.n}.json"

    def of(self, items: Sequence[T]) -> Sequence[T]:
        """Those of the items that are this shard's, in their order; none where there are fewer items than shards before it."""
        return items[self.i - 1 :: self.n]


@dataclass(frozen=True)
class Scheduler:
    """What a scheduler tells its processes in their environment.

    Attributes:
        name: Whose variables these are.
        index: The variable that tells the processes apart; a process is the scheduler's where it is set.
        first: The lowest index, where no variable tells it.
        count: The variable with the number of processes, if there is one.
        lowest: The variable with the lowest index.
        highest: The variable with the highest index.
        step: The variable with the step between two of them.
        absent: A value of ``index`` that says that there is none.
    """

    name: str
    index: str
    first: int
    count: str = ""
    lowest: str = ""
    highest: str = ""
    step: str = ""
    absent: str = ""


#: Whose variables are known; each by the scheduler's own documentation.
SCHEDULERS = (
    Scheduler(
        "Slurm", "SLURM_ARRAY_TASK_ID", 1, "SLURM_ARRAY_TASK_COUNT", "SLURM_ARRAY_TASK_MIN", "SLURM_ARRAY_TASK_MAX",
        "SLURM_ARRAY_TASK_STEP",
    ),
    # A Job's pods are not told how many they are: JOB_COMPLETIONS is set beside `completions` by whoever writes the manifest.
    Scheduler("Kubernetes", "JOB_COMPLETION_INDEX", 0, "JOB_COMPLETIONS"),
    Scheduler("GitLab", "CI_NODE_INDEX", 1, "CI_NODE_TOTAL"),
    Scheduler("Buildkite", "BUILDKITE_PARALLEL_JOB", 0, "BUILDKITE_PARALLEL_JOB_COUNT"),
    Scheduler("CircleCI", "CIRCLE_NODE_INDEX", 0, "CIRCLE_NODE_TOTAL"),
    Scheduler("Bitbucket", "BITBUCKET_PARALLEL_STEP", 0, "BITBUCKET_PARALLEL_STEP_COUNT"),
    Scheduler("Semaphore", "SEMAPHORE_JOB_INDEX", 1, "SEMAPHORE_JOB_COUNT"),
    Scheduler("Azure Pipelines", "SYSTEM_JOBPOSITIONINPHASE", 1, "SYSTEM_TOTALJOBSINPHASE"),
    Scheduler("AWS Batch", "AWS_BATCH_JOB_ARRAY_INDEX", 0, "AWS_BATCH_JOB_ARRAY_SIZE"),
    Scheduler("Google Batch", "BATCH_TASK_INDEX", 0, "BATCH_TASK_COUNT"),
    Scheduler("Cloud Run", "CLOUD_RUN_TASK_INDEX", 0, "CLOUD_RUN_TASK_COUNT"),
    Scheduler(
        "Grid Engine", "SGE_TASK_ID", 1, lowest="SGE_TASK_FIRST", highest="SGE_TASK_LAST", step="SGE_TASK_STEPSIZE",
        absent="undefined",
    ),
    Scheduler("LSF", "LSB_JOBINDEX", 1, highest="LSB_JOBINDEX_END", step="LSB_JOBINDEX_STEP", absent="0"),
    Scheduler("PBS", "PBS_ARRAY_INDEX", 1),
    Scheduler("Torque", "PBS_ARRAYID", 1),
)  # fmt: skip


def shard_of(text: str, environ: Mapping[str, str]) -> ShardIndex:
    """The shard that ``--shard`` means: ``i/n``, ``auto``, or ``auto/n`` where the environment tells i alone.

    Args:
        text: As it was given.
        environ: The environment, for ``auto``.

    Raises:
        SettingsError: it is none of these, or the environment does not tell.
    """
    auto = _AUTO.fullmatch(text)
    if auto is None:
        return parse_shard(text)
    count = None if auto[1] is None else int(auto[1])
    if count == 0:
        raise SettingsError("--shard auto/0: a number of shards from 1 was expected, as in --shard auto/8.")
    return shard_auto(environ, count)


def parse_shard(text: str) -> ShardIndex:
    """The shard of ``i/n``.

    Raises:
        SettingsError: it is not of this form, or i is none of 1 to n.
    """
    found = _SHARD.fullmatch(text)
    if found is None:
        raise SettingsError(
            f"--shard {clipped(text, 40)!r}: i/n with whole numbers was expected, as in --shard 2/7, "
            "or auto where a scheduler's environment tells it (auto/7 where it tells i alone)."
        )
    return ShardIndex(int(found[1]), int(found[2]))


def shard_auto(environ: Mapping[str, str], count: int | None = None) -> ShardIndex:
    """The shard that a scheduler's variables tell.

    Several schedulers may be told of at once (a job of one that runs within another): they must agree. One that says that its
    process is the only one divides nothing, and does not count beside another.

    Args:
        environ: The environment.
        count: The number of shards, where it is known otherwise; what the environment tells must be the same.

    Raises:
        SettingsError: no scheduler's variables are set, they do not make a shard of so many, or two schedulers tell different ones.
    """
    asked = "--shard auto" if count is None else f"--shard auto/{count}"
    read = [_read(s, environ, asked) for s in SCHEDULERS if environ.get(s.index, "") not in ("", s.absent)]
    read = [r for r in read if r.count != 1] or read
    if not read:
        some = ", ".join(f"{s.index} ({s.name})" for s in SCHEDULERS[:3])
        others = ", ".join(s.name for s in SCHEDULERS[3:])
        raise SettingsError(f"{asked}: no scheduler's index is set; one such as {some} was expected ({others} too). Or {_MEND}.")
    shares = {r: r.share(asked, count) for r in read}
    if len(set(shares.values())) > 1:
        told = " and ".join(f"{r.scheduler.name} tells {share} ({r.said})" for r, share in shares.items())
        raise SettingsError(f"{asked}: {told}; one shard was expected. Unset what does not count, or {_MEND}.")
    return next(iter(shares.values()))


@dataclass(frozen=True)
class _TaskOf:
    """What one scheduler's variables say: the place among its processes, from 1, and how many there are, if it is told."""

    scheduler: Scheduler
    said: str
    place: int
    count: int | None
    lowest: int

    def share(self, asked: str, count: int | None) -> ShardIndex:
        """The shard, of ``count`` where that is known otherwise."""
        s, n = self.scheduler, self.count if count is None else count
        if n is None:
            set_ = f"set {s.count} to it, or " if s.count else ""
            raise SettingsError(
                f"{asked}: {self.said} ({s.name}) tells which shard this is, but not how many there are: {set_}"
                "say the number, as in --shard auto/8."
            )
        if self.count is not None and self.count != n:
            raise SettingsError(
                f"{asked}: {self.said} ({s.name}) is one of {self.count} and not of {n}: not every shard would be measured. "
                f"Start {n} of them, or {_MEND}."
            )
        if not 1 <= self.place <= n:
            raise SettingsError(
                f"{asked}: {self.said} ({s.name}): an index from {self.lowest}, the first of {n}, was expected. "
                f"Start them so, or {_MEND}."
            )
        return ShardIndex(self.place, n)


def _read(s: Scheduler, environ: Mapping[str, str], asked: str) -> _TaskOf:
    """What a scheduler's variables say of this process."""

    def number(name: str) -> int | None:
        text = environ.get(name, "") if name else ""
        if not text:
            return None
        if not _NUMBER.fullmatch(text):
            raise SettingsError(
                f"{asked}: {name}={clipped(text, 40)!r}: a whole number was expected ({s.name}). Mend it, or {_MEND}."
            )
        return int(text)

    index, count, lowest, highest, step = map(number, (s.index, s.count, s.lowest, s.highest, s.step))
    assert index is not None
    low, by = s.first if lowest is None else lowest, step or 1
    names = [n for n in (s.index, s.count, s.lowest, s.highest, s.step) if environ.get(n, "")]
    said = ", ".join(f"{n}={environ[n]}" for n in names)
    whole = highest is None or count is None or low + by * (count - 1) == highest  # a list of single indices has gaps
    if count is None and highest is not None:
        count = (highest - low) // by + 1
    if not whole or (index - low) % by:
        raise SettingsError(
            f"{asked}: {said} ({s.name}): indices in equal steps were expected, so that each has its place. "
            f"Start them so, or {_MEND}."
        )
    return _TaskOf(s, said, (index - low) // by + 1, count, low)


__all__ = ["SCHEDULERS", "Scheduler", "ShardIndex", "parse_shard", "shard_auto", "shard_of"]
