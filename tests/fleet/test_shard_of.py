"""Which shard a process measures: every sample in exactly one, whatever the scheduler counts from."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxfim.errors import SettingsError
from onnxfim.fleet.shard_of import SCHEDULERS, ShardIndex, parse_shard, shard_auto, shard_of

BY_NAME = {s.name: s for s in SCHEDULERS}


def slurm(task, tasks, *, step=None):
    """What Slurm sets in one task of an array: the least and the greatest index, and how many there are."""
    return {
        "SLURM_ARRAY_TASK_ID": str(task), "SLURM_ARRAY_TASK_COUNT": str(len(tasks)), "SLURM_ARRAY_TASK_MIN": str(min(tasks)),
        "SLURM_ARRAY_TASK_MAX": str(max(tasks)), "SLURM_ARRAY_TASK_STEP": str(step or 1),
    }  # fmt: skip


def environment(scheduler, i, n):
    """What a scheduler sets in process i of n (from 1)."""
    found = {scheduler.index: str(scheduler.first + i - 1)}
    found |= {scheduler.count: str(n)} if scheduler.count else {}
    found |= {scheduler.lowest: str(scheduler.first)} if scheduler.lowest else {}
    found |= {scheduler.highest: str(scheduler.first + n - 1)} if scheduler.highest else {}
    return found | ({scheduler.step: "1"} if scheduler.step else {})


def told(environ, text="--shard auto"):
    """The message of a refusal: one line."""
    with pytest.raises(SettingsError) as found:
        shard_of(text.removeprefix("--shard "), environ)
    message = str(found.value)
    assert "\n" not in message
    assert message.endswith(".")
    return message


# Every sample in exactly one shard.


@given(st.lists(st.integers(0, 10**6), max_size=60, unique=True), st.integers(1, 70))
def test_every_audited_sample_is_in_one_shard(audited, n):
    audited = sorted(audited)
    shards = [ShardIndex(i, n).of(audited) for i in range(1, n + 1)]
    assert sorted(itertools.chain(*shards)) == audited
    assert max(map(len, shards)) - min(map(len, shards)) <= 1
    assert all(s == sorted(s) for s in shards)


@given(st.integers(0, 50), st.integers(1, 9), st.integers(1, 40), st.booleans())
def test_tasks_of_a_slurm_array_share_all_samples(lowest, step, n, named):
    """Wherever the array begins, in whatever steps, and whether the number is given as well."""
    tasks = range(lowest, lowest + step * n, step)
    shares = [shard_auto(slurm(t, tasks, step=step), n if named else None) for t in tasks]
    assert shares == [ShardIndex(i, n) for i in range(1, n + 1)]


@given(st.sampled_from(SCHEDULERS), st.integers(1, 40))
def test_processes_of_every_scheduler_share_all_samples(scheduler, n):
    alone = bool(scheduler.count or scheduler.highest)
    shares = [shard_of("auto" if alone else f"auto/{n}", environment(scheduler, i, n)) for i in range(1, n + 1)]
    assert shares == [ShardIndex(i, n) for i in range(1, n + 1)]
    assert len({s.file_name for s in shares}) == n


def test_no_two_schedulers_read_one_variable():
    names = [v for s in SCHEDULERS for v in (s.index, s.count, s.lowest, s.highest, s.step) if v]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("environ", "text", "expected"),
    [
        ({"SLURM_ARRAY_TASK_ID": "2", "SLURM_ARRAY_TASK_COUNT": "3"}, "auto", "2/3"),  # the least index is not told: from 1
        (slurm(7, range(5, 9)), "auto", "3/4"),
        (slurm(12, range(0, 16, 4), step=4), "auto", "4/4"),
        ({"JOB_COMPLETION_INDEX": "0", "JOB_COMPLETIONS": "8"}, "auto", "1/8"),
        ({"JOB_COMPLETION_INDEX": "7"}, "auto/8", "8/8"),
        ({"CI_NODE_INDEX": "4", "CI_NODE_TOTAL": "4"}, "auto", "4/4"),
        ({"BUILDKITE_PARALLEL_JOB": "0", "BUILDKITE_PARALLEL_JOB_COUNT": "5"}, "auto", "1/5"),
        ({"CIRCLE_NODE_INDEX": "0", "CIRCLE_NODE_TOTAL": "1"}, "auto", "1/1"),
        ({"SGE_TASK_ID": "7", "SGE_TASK_FIRST": "1", "SGE_TASK_LAST": "9", "SGE_TASK_STEPSIZE": "3"}, "auto", "3/3"),
        ({"SGE_TASK_ID": "undefined", "CI_NODE_INDEX": "1", "CI_NODE_TOTAL": "2"}, "auto", "1/2"),
        ({"LSB_JOBINDEX": "0", "CI_NODE_INDEX": "1", "CI_NODE_TOTAL": "2"}, "auto", "1/2"),
        ({"PBS_ARRAY_INDEX": "3"}, "auto/3", "3/3"),
        ({"CI_NODE_INDEX": "1", "CI_NODE_TOTAL": "2", "SLURM_ARRAY_TASK_ID": ""}, "auto", "1/2"),  # set to nothing is not set
    ],
)  # fmt: skip
def test_what_schedulers_say(environ, text, expected):
    assert str(shard_of(text, environ)) == expected


@pytest.mark.parametrize(("text", "expected"), [("2/7", ShardIndex(2, 7)), ("1/1", ShardIndex(1, 1)), ("7/7", ShardIndex(7, 7))])
def test_a_shard_is_told(text, expected):
    assert parse_shard(text) == shard_of(text, {}) == expected
    assert str(expected) == text


# Refusals.


@pytest.mark.parametrize(
    "text",
    ["", "2", "/7", "2/", "2/7/1", "-1/7", "+1/7", "1.5/7", "a/b", " 2/7", "2/7\n", "²/7", "٢/٧", "1/9999999999", "AUTO", "auto/", "auto/x",
     "auto/-1", "\x1b[31m2/7"],
)  # fmt: skip
def test_what_is_no_shard_is_refused(text):
    message = told({"CI_NODE_INDEX": "1", "CI_NODE_TOTAL": "2"}, f"--shard {text}")
    assert "i/n with whole numbers was expected, as in --shard 2/7" in message
    assert message.isprintable()


@pytest.mark.parametrize("text", ["0/7", "8/7", "1/0", "0/0"])
def test_a_shard_that_there_is_not_is_refused(text):
    assert f"--shard {text}: i/n with i from 1 to n was expected" in told({}, f"--shard {text}")


def test_no_shards_are_refused():
    assert "--shard auto/0: a number of shards from 1 was expected" in told({"JOB_COMPLETION_INDEX": "0"}, "--shard auto/0")


def test_without_a_scheduler_the_known_ones_are_named():
    message = told({"CI_NODE_TOTAL": "1", "PATH": "/bin"})
    assert "SLURM_ARRAY_TASK_ID (Slurm), JOB_COMPLETION_INDEX (Kubernetes), CI_NODE_INDEX (GitLab)" in message
    assert all(s.name in message for s in SCHEDULERS)
    assert message.endswith("tell the shard itself: --shard i/n, with i from 1 to n.")


@pytest.mark.parametrize(
    ("environ", "text", "words"),
    [
        ({"JOB_COMPLETION_INDEX": "3"}, "auto", ["JOB_COMPLETION_INDEX=3 (Kubernetes)", "set JOB_COMPLETIONS", "--shard auto/8"]),
        ({"PBS_ARRAY_INDEX": "3"}, "auto", ["PBS_ARRAY_INDEX=3 (PBS)", "but not how many", "--shard auto/8"]),
        # Some hosts set the same names and count from 0: the first of them is refused, and no two get one shard.
        ({"CI_NODE_INDEX": "0", "CI_NODE_TOTAL": "4"}, "auto", ["CI_NODE_INDEX=0", "an index from 1, the first of 4, was expected"]),
        ({"CI_NODE_INDEX": "5", "CI_NODE_TOTAL": "4"}, "auto", ["CI_NODE_INDEX=5", "the first of 4"]),
        ({"JOB_COMPLETION_INDEX": "8"}, "auto/8", ["JOB_COMPLETION_INDEX=8", "an index from 0, the first of 8, was expected"]),
        ({"SLURM_ARRAY_TASK_ID": "0", "SLURM_ARRAY_TASK_COUNT": "3"}, "auto", ["SLURM_ARRAY_TASK_ID=0", "an index from 1"]),
        ({"CI_NODE_INDEX": "1", "CI_NODE_TOTAL": "4"}, "auto/8", ["is one of 4 and not of 8", "Start 8 of them"]),
        (slurm(3, [3, 7]), "auto/16", ["SLURM_ARRAY_TASK_ID=3", "indices in equal steps"]),  # two shards started again
        (slurm(3, [3, 4]), "auto/16", ["is one of 2 and not of 16"]),
        (slurm(4, [1, 4, 9]), "auto", ["SLURM_ARRAY_TASK_ID=4, SLURM_ARRAY_TASK_COUNT=3", "indices in equal steps were expected"]),
        (slurm(3, range(0, 16, 4), step=4), "auto", ["indices in equal steps were expected"]),
        ({"CI_NODE_INDEX": "one", "CI_NODE_TOTAL": "4"}, "auto", ["CI_NODE_INDEX='one': a whole number was expected (GitLab)"]),
        ({"CI_NODE_INDEX": "1", "CI_NODE_TOTAL": "-4"}, "auto", ["CI_NODE_TOTAL='-4': a whole number was expected"]),
        ({"CI_NODE_INDEX": "1", "CI_NODE_TOTAL": "0"}, "auto", ["the first of 0"]),
        ({"CI_NODE_INDEX": "\x1b[2J" + "9" * 500, "CI_NODE_TOTAL": "4"}, "auto", ["a whole number was expected"]),
    ],
)  # fmt: skip
def test_an_environment_that_does_not_tell_is_refused(environ, text, words):
    message = told(environ, f"--shard {text}")
    assert message.startswith(f"--shard {text}: ")
    assert all(w in message for w in words), message
    assert len(message) < 400
    assert message.isprintable()


def test_schedulers_that_contradict_one_another_are_refused():
    message = told({**environment(BY_NAME["GitLab"], 2, 4), **slurm(1, range(1, 9))})
    assert "Slurm tells 1/8 (SLURM_ARRAY_TASK_ID=1" in message
    assert "GitLab tells 2/4 (CI_NODE_INDEX=2, CI_NODE_TOTAL=4)" in message
    assert "one shard was expected" in message
    with pytest.raises(SettingsError, match=r"Slurm tells 1/4 .* and GitLab tells 2/4"):
        shard_auto({**environment(BY_NAME["GitLab"], 2, 4), **slurm(1, range(1, 5))}, 4)


def test_schedulers_that_agree_are_taken():
    assert shard_auto({**environment(BY_NAME["GitLab"], 2, 4), **slurm(1, range(4))}) == ShardIndex(2, 4)


def test_a_scheduler_of_one_process_does_not_count_beside_another():
    """CircleCI and Azure Pipelines always set theirs; a batch system that such a job submits to may be handed them."""
    alone = {**environment(BY_NAME["CircleCI"], 1, 1), **environment(BY_NAME["Azure Pipelines"], 1, 1)}
    assert shard_auto({**alone, **slurm(3, range(1, 9))}) == ShardIndex(3, 8)
    assert shard_auto({**alone, "JOB_COMPLETION_INDEX": "3"}, 8) == ShardIndex(4, 8)
    assert shard_auto(alone) == ShardIndex(1, 1)
