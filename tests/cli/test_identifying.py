"""What the command line tells of a report, in the files that it writes."""

from __future__ import annotations

import hashlib
import json
import platform
import re

import pytest

from onnxfim.record.audit import Audit

GOOD = ("model.onnx", "--data", "data.npz", "--provider", "cpu", "--samples", "30", "--replay", "0", "--no-bounds")


def identity(path):
    return Audit.load(path).identity


def test_all_that_is_told(here, command):
    told = ("--title", "Release 1", "--note", "a note", "--meta", "owner=me", "--meta", "owner=you", "--meta", "empty=", "--host")
    done = command("audit", *GOOD, *told, "-o", "json=a.json")
    assert done.exit_code == 0, done.output
    found = identity("a.json")
    assert found.command == ("onnxfim", "audit", *GOOD, *told, "-o", "json=a.json")
    assert (found.title, found.note, found.meta) == ("Release 1", "a note", (("owner", "you"), ("empty", "")))
    assert found.host == platform.node()
    assert found.date == "2023-11-14T22:13:20Z"


def test_what_is_not_asked_for_is_not_told(here, command):
    assert command("audit", *GOOD, "--no-date", "-o", "json=a.json").exit_code == 0
    found = identity("a.json")
    assert (found.date, found.title, found.note, found.meta, found.host) == (None, None, None, (), None)
    assert re.fullmatch("[0-9a-f]{64}", found.report_id)
    assert platform.node() not in (here / "a.json").read_text("utf-8")


def test_a_file_of_options_tells_it_too(here, command):
    (here / "onnxfim.toml").write_text('title = "From the file"\nmeta = ["a=b", "c=d"]\nno-date = true\n')
    assert command("audit", *GOOD, "-o", "json=a.json").exit_code == 0
    found = identity("a.json")
    assert (found.title, found.meta, found.date) == ("From the file", (("a", "b"), ("c", "d")), None)


def test_no_secret_is_in_any_file(here, command):
    told = (
        "--meta",
        "api-key=hunter2hunter2",
        "--note",
        "from https://me:hunter2hunter2@host/",
        "--title",
        "Bearer hunter2hunter2",
    )
    outputs = [a for n in ("html", "json", "csv", "junit", "sarif", "markdown", "comment") for a in ("-o", f"{n}=out.{n}")]
    done = command("audit", *GOOD, *told, *outputs)
    assert done.exit_code == 0, done.output
    for path in here.glob("out.*"):
        assert "hunter2" not in path.read_text("utf-8"), path.name
    assert identity("out.json").meta == (("api-key", "[redacted]"),)


@pytest.mark.parametrize("text", ["owner", "=me", " =x"])
def test_meta_that_is_no_pair(here, command, text):
    done = command("audit", *GOOD, "--meta", text)
    assert done.exit_code == 2
    assert f"'{text}' is not KEY=VALUE" in " ".join(done.output.split())


@pytest.mark.parametrize("words", [("audit", *GOOD), ("compare", "a.json", "a.json"), ("convert", "a.json")])
def test_a_malformed_date_ends_it_in_one_line(here, command, monkeypatch, words):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "soon")
    done = command(*words)
    assert done.exit_code == 2
    (line,) = done.output.strip().splitlines()
    assert "SOURCE_DATE_EPOCH: found 'soon', expected whole seconds" in line
    assert not (here / "report.html").exists()


def test_two_runs_differ_in_times_alone(here, command):
    texts = []
    for name in ("a", "b"):
        assert command("audit", *GOOD, "-o", "json=a.json", "--no-cache").exit_code == 0
        record = json.loads((here / "a.json").read_text("utf-8"))
        record["run"]["seconds"] = record["run"]["times"] = None
        texts.append(json.dumps(record))
        (here / "a.json").rename(here / f"{name}-kept.json")
    assert texts[0] == texts[1]


@pytest.mark.parametrize("name", ["html", "json", "csv", "junit", "sarif", "markdown", "comment"])
def test_a_saved_audit_gives_the_same_bytes_at_any_time(here, command, monkeypatch, name):
    assert command("audit", *GOOD, "-o", "json=a.json").exit_code == 0
    for out, now in (("b", "1800000000"), ("c", "1900000000")):
        monkeypatch.setenv("SOURCE_DATE_EPOCH", now)
        assert command("convert", "a.json", "-o", f"{name}={out}").exit_code == 0
    assert (here / "b").read_bytes() == (here / "c").read_bytes()


def test_convert_says_more_of_a_report(here, command):
    assert command("audit", *GOOD, "--meta", "a=b", "--note", "old", "-o", "json=a.json").exit_code == 0
    assert command("convert", "a.json", "--title", "Final", "--meta", "c=d", "--no-date", "-o", "json=b.json").exit_code == 0
    before, after = identity("a.json"), identity("b.json")
    assert (after.report_id, after.command, after.note) == (before.report_id, before.command, "old")
    assert (after.title, after.meta, after.date) == ("Final", (("a", "b"), ("c", "d")), None)


def test_a_comparison_has_one(here, command):
    for seed in ("0", "1"):
        assert command("audit", *GOOD, "--seed", seed, "-o", f"json={seed}.json").exit_code == 0
    outputs = ("-o", "json=c.json", "-o", "markdown=c.md", "-o", "html=c.html")
    done = command("compare", "0.json", "1.json", "--title", "Twins", *outputs)
    assert done.exit_code == 0, done.output
    found = json.loads((here / "c.json").read_text("utf-8"))["identity"]
    assert found["title"] == "Twins"
    assert found["command"][:4] == ["onnxfim", "compare", "0.json", "1.json"]
    assert json.loads(found["asked"])["compared"] == [identity(f"{s}.json").report_id for s in (0, 1)]
    assert found["report_id"] in (here / "c.md").read_text("utf-8")
    assert found["report_id"] in (here / "c.html").read_text("utf-8")


def test_bounds_say_who_they_are(here, command):
    told = ("--title", "Release <1>", "--note", "one\ntwo", "--meta", "owner=me")
    asked = []
    for n, others in enumerate([(), (), ("--input", "x"), ("--no-date",)]):
        done = command("bounds", "model.onnx", *told, *others, "-o", "json=b.json", "-o", "html=b.html")
        assert done.exit_code == 0, done.output
        found = json.loads((here / "b.json").read_text("utf-8"))["identity"]
        assert (found["title"], found["note"], found["meta"], found["host"]) == ("Release <1>", "one\ntwo", [["owner", "me"]], None)
        assert found["date"] == (None if n == 3 else "2023-11-14T22:13:20Z")
        assert hashlib.sha256(found["asked"].encode()).hexdigest() == found["report_id"]
        page = (here / "b.html").read_text("utf-8")
        assert "<h1><bdi>Release &lt;1&gt;</bdi></h1>" in page
        assert f"report {found['report_id'][:12]}" in page
        assert "<bdi>one\ntwo</bdi>" in page
        asked.append(found["report_id"])
    assert asked[0] == asked[1] == asked[3]
    assert asked[2] != asked[0]


def test_a_note_of_several_lines_is_read_as_it_was_written(here, command):
    note = "First line.\n\nSecond \x1b[31mline."
    outputs = [a for n in ("html", "csv", "markdown", "junit") for a in ("-o", f"{n}=out.{n}")]
    assert command("audit", *GOOD, "--note", note, *outputs).exit_code == 0
    for path in here.glob("out.*"):
        text = path.read_text("utf-8")
        assert re.search(r"First line\. Second \\{1,2}u001b\\?\[31mline\.", text), path.name
        assert "\x1b" not in text, path.name
    assert "<bdi>First line.\n\nSecond \\u001b[31mline.</bdi>" in (here / "out.html").read_text("utf-8")


@pytest.mark.parametrize("with_script", [True, False])
def test_a_comparison_has_a_script_unless_it_is_not_wanted(here, command, with_script):
    assert command("audit", *GOOD, "-o", "json=a.json").exit_code == 0
    words = () if with_script else ("--no-script",)
    assert command("compare", "a.json", "a.json", *words, "-o", "html=c.html").exit_code in (0, 4)
    assert ("<script" in (here / "c.html").read_text("utf-8")) == with_script
