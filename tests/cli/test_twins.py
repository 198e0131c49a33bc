"""`compare` of an audit with itself and with every other kind: whatever is missing is said, in every format."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from click.testing import CliRunner

from onnxfim.cli import main
from onnxfim.cli.console import Console
from onnxfim.cli.gating import print_checks
from onnxfim.record.decision import Aggregate
from tests.support.audits import VARIANTS

FORMATS = [a for kind in ("html", "json", "markdown") for a in ("-o", f"{kind}=c.{kind}")]


def compared(folder, *names):
    """Compare audits of these kinds; its result, once every format is written or one line says why not."""
    paths = []
    for name in names:
        paths.append(folder / f"{name}.json")
        paths[-1].write_bytes(VARIANTS[name]().to_json().encode("utf-8", "backslashreplace"))
    done = CliRunner().invoke(main, ["compare", *map(str, paths), *FORMATS])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exc_info
    if done.exit_code == 2:
        assert done.stderr.splitlines()[-1].startswith("onnxfim: ")
    else:
        assert json.loads((folder / "c.json").read_text("utf-8"))["entries"]
        assert (folder / "c.markdown").read_text("utf-8").startswith("# ")
    assert "None" not in done.output
    return done


@pytest.mark.parametrize("name", sorted(set(VARIANTS) - {"thousand"}))
def test_an_audit_compares_with_itself(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    done = compared(tmp_path, name, name)
    if not VARIANTS[name]().measured:
        assert done.exit_code == 2
    elif not VARIANTS[name]().run.partial:
        assert done.exit_code == 0, done.output
        assert "Identical: " in done.stdout
        assert "is the same file on the same provider" in done.stdout


@pytest.mark.parametrize(
    "name", ["nulls", "some-nulls", "unlabelled", "one", "two", "empty", "exact", "hostile", "flips", "fallback"]
)
def test_an_audit_compares_with_another_kind(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    for pair in (("labelled", name), (name, "labelled")):
        compared(tmp_path, *pair)


@pytest.mark.parametrize("ends", [(None, None), (0.5, None), (None, 0.5)])
def test_a_baseline_without_intervals_is_told(capsys, ends):
    audit = VARIANTS["gated"]()
    open_ended, unknown = Aggregate(1.5, *ends), Aggregate(None, None, None)
    for share in (open_ended, unknown):
        comparison = replace(audit.comparison, ratio=open_ended, ratio_here=open_ended, worse=share, better=share)
        print_checks(replace(audit, comparison=comparison), Console())
    told = capsys.readouterr().err
    assert "not bounded" in told
    assert "an unknown share of the samples got worse" in told
    assert "None" not in told
