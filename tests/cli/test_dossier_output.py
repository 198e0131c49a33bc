"""`-o dossier=DIR`: checked before any work, written whole, replaced by the next run."""

from __future__ import annotations

import hashlib
import json

import pytest

from onnxfim.report.dossier import NAMES
from tests.support.audits import make_audit

GOOD = ("model.onnx", "--data", "data.npz", "--provider", "cpu", "--replay", "0", "--no-bounds")


def names(folder):
    return {p.name for p in folder.iterdir()}


def test_an_audit_writes_one_and_the_next_replaces_it(here, command):
    for title in ("First", "Second"):
        done = command("audit", *GOOD, "--title", title, "-o", "dossier=d", "-o", "json=a.json")
        assert done.exit_code == 0, done.output
        assert "files: d, a.json" in done.output.splitlines()
        assert names(here / "d") == set(NAMES)
        assert title in (here / "d/report.html").read_text("utf-8")
    assert names(here) == {"model.onnx", "data.npz", "d", "a.json"}
    assert (here / "d/report.json").read_bytes() == (here / "a.json").read_bytes()
    statement = json.loads((here / "d/statement.intoto.json").read_text("utf-8"))
    told = {s["name"]: s["digest"] for s in statement["subject"]}
    for name in ("model.onnx", "data.npz"):
        assert told[name] == {"sha256": hashlib.sha256((here / name).read_bytes()).hexdigest()}


def test_one_is_made_of_a_saved_audit(here, command):
    make_audit(20).save(here / "a.json")
    assert command("convert", "a.json", "-o", "dossier=d").exit_code == 0
    assert (here / "d/report.json").read_bytes() == (here / "a.json").read_bytes()


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        (("dossier=-",), "'dossier=-': is a folder, which stdout cannot hold. Write dossier=DIR."),
        (("dossier=.",), "and is no dossier, expected an empty folder or an older dossier"),
        (("dossier=no/d",), "the folder 'no' does not exist"),
        (("dossier=data.npz",), "data.npz: is no folder"),
        (("dossier=d", "dossier=d/"), "d/: dossier and dossier would both be written to it"),
        (("dossier=d", "json=d/report.json"), "d/report.json: lies in the dossier d"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_told_before_any_work(here, command, outputs, message):
    before = names(here)
    done = command("audit", *GOOD, *(a for o in outputs for a in ("-o", o)))
    assert done.exit_code == 2
    assert message in " ".join(done.output.split())
    assert names(here) == before


def test_a_dossier_does_not_replace_what_is_read(here, command):
    make_audit(20).save(here / "a.json")
    assert command("convert", "a.json", "-o", "dossier=d").exit_code == 0
    before = (here / "d/SHA256SUMS").read_bytes()
    done = command("convert", "d/report.json", "--title", "Other", "-o", "dossier=d")
    assert done.exit_code == 2
    assert "d: would replace d/report.json, which is read. Name another folder." in " ".join(done.output.split())
    assert (here / "d/SHA256SUMS").read_bytes() == before


def test_a_working_folder_that_is_gone_is_told(here, command, monkeypatch):
    make_audit(20).save(here / "a.json")
    gone = here / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    done = command("convert", here / "a.json", "-o", "dossier=d")
    assert done.exit_code == 2
    assert len(done.output.strip().splitlines()) == 1
    done = command("convert", here / "a.json", "-o", f"dossier={here / 'd'}")
    assert done.exit_code == 0, done.output
    assert names(here / "d") == set(NAMES)
