"""Two checkouts' values are compared to the last leaf, whatever layout their JSON has."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.benchmarks._checkout_values import compare, flatten, normalise, read_document, read_expected

SCRIPT = Path(__file__).with_name("compare_checkouts.py")
SKETCH = {"plain": 4.2, "cross_fit": 3.8, "replicates": [1.1, 0.9]}


def estimate(value, **more):
    return {
        "value": value, "low": 0.9 * value, "high": 1.1 * value, "kind": "estimate", "method": "Gram sketch", "evaluations": 33,
        "reason": None, **more,
    }  # fmt: skip


NONE = {"value": None, "low": None, "high": None, "kind": "estimate", "method": "", "evaluations": 0}


def first_layout():
    """A cut-down audit as schema 1.0 lays it out: bare numbers, their intervals apart, null where there is nothing."""
    sample = {
        "index": 0, "label": 3, "unchanged": 0.0, "top_eigenvalues": [],
        "lambda_max": estimate(4.0, **SKETCH),
        "lambda_max_calibrated": {**NONE, "reason": "no labels", "plain": None, "cross_fit": None, "replicates": []},
        "lambda_max_raw_units": None,
        "trace": 9.5, "effective_rank": 2.375, "boundary_distance": None, "logit_sensitivity": 7.25,
        "attack_distance": None, "log10_fisher_bound": 3.5,
        "intervals": {
            "trace": estimate(9.5), "boundary_distance": {**NONE, "reason": "one class"}, "logit_sensitivity": estimate(7.25),
        },
    }  # fmt: skip
    return {
        "schema_version": "1.0", "verdict": "pass", "attack": None, "skipped": [],
        "model": {"path": "/somewhere/model.onnx", "opset": 18},
        "run": {"seconds": 1.8, "evaluations": 264, "partial": False, "times": {"rows_per_second": 1266.1}, "platform": "Linux"},
        "samples": [sample, {**copy.deepcopy(sample), "index": 1}],
        "aggregates": {"lambda_max": {"mean": {"value": 4.0, "low": 3.0, "high": 5.0}, "count": 2, "units": "nats"}},
        "findings": [{"id": "no-labels", "level": "note", "message": "No labels: 2 samples."}],
    }  # fmt: skip


def second_layout():
    """The same audit as schema 2.0 lays it out: every measure an object, with kinds and units, nothing written where there is none."""
    record = first_layout()
    record["schema_version"] = "2.0"
    del record["attack"], record["skipped"]
    for sample in record["samples"]:
        apart = sample.pop("intervals")
        sample.update({name: {**apart[name], "units": "nats"} for name in ("trace", "logit_sensitivity")})
        sample["boundary_distance"] = {"value": None, "reason": "one class"}
        sample["lambda_max_calibrated"] = {"value": None, "reason": "no labels"}
        sample["effective_rank"] = {"value": 2.375, "kind": "estimate"}
        sample["log10_fisher_bound"] = {"value": 3.5, "kind": "upper bound"}
        for empty in ("top_eigenvalues", "lambda_max_raw_units", "attack_distance"):
            del sample[empty]
    return record


def held(a, b, **options):
    return compare(*(read_document("audit.json", json.dumps(r)) for r in (a, b)), **options)


def paths(outcome, kind="differs"):
    return [d.path for d in outcome.differences if d.kind == kind]


@pytest.mark.parametrize("layout", [first_layout, second_layout])
def test_a_planted_difference_is_found(layout):
    now = layout()
    now["samples"][1]["lambda_max"]["value"] *= 1 + 1e-8
    found = held(first_layout(), now)
    assert paths(found) == ["samples[1].lambda_max.value"]
    assert found.differences[0].relative == pytest.approx(1e-8, rel=1e-6)  # relative to the larger of the two
    assert "(relative 1e-08)" in str(found.differences[0])
    assert not paths(held(first_layout(), now, tolerance=2e-8))


def test_rounding_is_no_difference():
    now = first_layout()
    now["samples"][1]["lambda_max"]["value"] *= 1 + 1e-10
    found = held(first_layout(), now)
    assert not found.differences
    assert found.rounding == pytest.approx(1e-10, rel=1e-4)


def test_every_leaf_counts():
    """A change at any place of an audit is found, but for the clock's and the machine's places and for the kind of no value."""
    flat = flatten(first_layout())
    ignored = {"schema_version", "run.seconds", "run.times.rows_per_second", "run.platform"}
    ignored |= {f"samples[{i}].{m}.kind" for i in (0, 1) for m in ("lambda_max_calibrated", "intervals.boundary_distance")}
    for path in [p for p, v in flat.items() if v is not None and not p.endswith("[]")]:
        now = first_layout()
        *folders, last = path.replace("[no-labels]", ".0").replace("[", ".").replace("]", "").split(".")
        place = now
        for key in folders:
            place = place[int(key)] if isinstance(place, list) else place[key]
        last = int(last) if isinstance(place, list) else last
        old = place[last]
        place[last] = not old if isinstance(old, bool) else old + "x" if isinstance(old, str) else 1.5 * old + 1e-9
        assert bool(held(first_layout(), now).differences) != (path in ignored), path


def test_layouts_hold_the_same_values():
    found = held(first_layout(), second_layout())
    assert not [d for d in found.differences if d.kind != "only in B"]
    assert {p.rpartition("].")[2] for p in paths(found, "only in B")} == {
        "trace.units", "logit_sensitivity.units", "effective_rank.kind", "log10_fisher_bound.kind",
    }  # fmt: skip
    assert held(second_layout(), second_layout()).compared > 40


def test_a_value_with_two_homes_that_disagree_is_seen():
    now = first_layout()
    now["samples"][0]["trace"] = 9.6
    assert "samples[0].trace.bare" in [d.path for d in held(first_layout(), now).differences]


@pytest.mark.parametrize(
    ("a", "b", "kind"),
    [
        ({"x": None}, {}, None),
        ({}, {"x": []}, None),
        ({"x": ""}, {"x": None}, None),
        ({"x": None}, {"x": 1}, "differs"),
        ({"x": None}, {"x": {"y": 1}}, "differs"),
        ({"x": 1}, {}, "only in A"),
        ({"x": 1}, {"x": None}, "only in A"),
        ({}, {"x": 1}, "only in B"),
        ({"x": {"y": 1}}, {"x": {"y": 1, "z": 2}}, "only in B"),
        ({"x": 1}, {"x": True}, "differs"),
        ({"x": 1}, {"x": 1.0}, None),
        ({"x": 1}, {"x": "1"}, "differs"),
        ({"x": 1e-310}, {"x": 0.0}, None),
        ({"x": 1e-264}, {"x": 1.1e-264}, "differs"),
        ({"log10_norm": 8.9e-16}, {"log10_norm": 0.0}, None),
        ({"log10_norm": 8.9e-11}, {"log10_norm": 0.0}, "differs"),
        ({"top_eigenvalues": [2.0, 1e-17]}, {"top_eigenvalues": [2.0, 3e-17]}, None),
        ({"top_eigenvalues": [2.0, 1e-11]}, {"top_eigenvalues": [2.0, 3e-11]}, "differs"),
        ({"top_eigenvalues": [1e-17]}, {"top_eigenvalues": [3e-17]}, "differs"),
        ({"x": "mean 4.0 > 3.5"}, {"x": "mean 4.0000000001 > 3.5"}, None),
        ({"x": "mean 4.0 > 3.5"}, {"x": "mean 4.1 > 3.5"}, "differs"),
        ({"x": "mean 4.0 > 3.5"}, {"x": "mean 4.0 < 3.5"}, "differs"),
    ],
)
def test_what_counts_as_different(a, b, kind):
    kinds = [d.kind for d in held(a, b).differences]
    assert kinds == ([] if kind is None else [kind])


@pytest.mark.parametrize(("a", "b"), [([], [1]), ([1], [1, 2]), ([1, 2], [1]), ([{"id": "p"}], [{"id": "p"}, {"id": "q"}])])
def test_a_list_of_another_length_differs(a, b):
    assert [d for d in held({"x": a}, {"x": b}).differences if d.kind != "only in B"]


def test_items_with_an_id_are_told_apart_by_it():
    a = {"findings": [{"id": "p", "level": "note"}, {"id": "q", "level": "error"}]}
    b = {"findings": a["findings"][::-1]}
    assert not held(a, b).differences
    assert flatten(a)["findings[q].level"] == "error"


def test_a_new_branch_is_told_once():
    found = held({"x": {"y": 1}}, {"x": {"y": 1, "new": {"p": 1, "q": [1, 2]}}, "more": [{"z": 1}]})
    assert paths(found, "only in B") == ["x.new", "more"]


def test_the_layout_that_a_page_names_is_no_difference():
    a, b = (read_document("page.html", f"<p>Made by onnxfim, audit schema {v}.</p>") for v in ("1.0", "2.0"))
    assert not compare(a, b).differences


def test_other_documents_are_left_as_they_are():
    record = {"samples": [{"index": 0, "values": [1.0]}]}
    assert normalise(record) is record


def test_paths_of_the_two_checkouts_are_equal():
    a, b = (
        read_document(
            "x.json", json.dumps({"path": f"{root}/m.onnx", "data": f"{root}/shared/d.npz"}), {root: "<c>", f"{root}/shared": "<s>"}
        )
        for root in ("/home/one", "/tmp/two")
    )
    assert not compare(a, b).differences
    assert a.leaves["data"] == "<s>/d.npz"


@pytest.mark.parametrize(
    ("name", "a", "b", "where"),
    [
        ("rows.csv", "name,trace\nx,4.5\n", "name,new,trace\nx,1,4.6\n", "rows[0].trace"),
        ("out.xml", "<a><p name='m' v='4.5'/></a>", "<a><p name='l' v='1'/><p name='m' v='4.6'/></a>", "a.p[m].@v"),
        ("out.sarif", '{"x": [4.5]}', '{"x": [4.6]}', "x[0]"),
        ("page.html", "<style>1</style><p>4.5</p>", "<style>2</style><p>4.6</p>", "lines[0]"),
        ("summary.md", "one\n4.5 s", "one\n4.6 s", "lines[1]"),
        ("summary.md", "one\ntwo\nthree", "one\nthree", "lines[1]"),
    ],
)
def test_every_format_is_read(name, a, b, where):
    assert paths(compare(read_document(name, a), read_document(name, b))) == [where]


def test_a_broken_file_is_told():
    with pytest.raises(ValueError, match="is not XML"):
        read_document("out.xml", "<a>")


def test_expected_differences_need_a_reason():
    (entry,) = read_expected("# why\n\nauto/*#samples[?].trace.*: counted twice: before\n")
    assert entry.covers("auto/m/audit.json#samples[3].trace.value")
    assert not entry.covers("auto/m/audit.json#samples[3].lambda_max.value")
    assert entry.reason == "counted twice: before"
    with pytest.raises(ValueError, match=r"line 2: 'a\.b' has no reason, expected 'pattern: reason'"):
        read_expected("\na.b\n")


def test_the_lines_beside_the_script_are_read():
    read_expected(SCRIPT.with_name("expected_differences.txt").read_text(encoding="utf-8"))


@pytest.fixture
def sides(tmp_path):
    """Two folders of values as `measure` writes them, and a function that compares them."""
    for side in "ab":
        folder = tmp_path / side / "auto" / "m"
        folder.mkdir(parents=True)
        about = {"checkout": f"/tmp/{side}", "shared": "/tmp/shared", "machine": {"cpus": 2}}
        (tmp_path / side / "about.json").write_text(json.dumps(about), encoding="utf-8")
        (folder / "result.json").write_text(json.dumps({"exit_code": 0, "seconds": 1.0, "stderr": ""}), encoding="utf-8")
        (folder / "audit.json").write_text(json.dumps(first_layout()), encoding="utf-8")

    def diff(*options):
        command = [sys.executable, str(SCRIPT), "diff", str(tmp_path / "a"), str(tmp_path / "b"), *options]
        ended = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False)
        return ended.returncode, ended.stdout + ended.stderr

    return tmp_path, diff


def change(path, edit):
    record = json.loads(path.read_text(encoding="utf-8"))
    edit(record)
    path.write_text(json.dumps(record), encoding="utf-8")


def test_equal_folders_end_with_0(sides):
    root, diff = sides
    change(root / "b/auto/m/audit.json", lambda r: r["run"].update(seconds=99.0))
    code, said = diff()
    assert code == 0, said
    assert "values compared in 2 files, largest relative difference 0, differing: none" in said


def test_a_difference_ends_with_1_unless_it_is_expected(sides):
    root, diff = sides
    change(root / "b/auto/m/audit.json", lambda r: r["samples"][0]["lambda_max"].update(value=4.0 * (1 + 1e-8)))
    code, said = diff()
    assert code == 1
    assert "auto/m/audit.json: 1 differ\n  samples[0].lambda_max.value: 4.0 → 4.00000004 (relative 1e-08)\n" in said
    assert said.endswith("differing: 1 in auto/m/audit.json\n")
    allowed = root / "expected.txt"
    allowed.write_text("*#samples[*].lambda_max.value: a fault mended\nnowhere: nothing\n", encoding="utf-8")
    code, said = diff("--expected", str(allowed))
    assert code == 0, said
    assert "expected: *#samples[*].lambda_max.value (a fault mended): 1 differ, at most 1e-08 relative" in said
    assert "expected: nowhere (nothing): nothing differs here" in said
    assert said.endswith("largest relative difference 0, differing: none\n")  # an expected one is told in its own line


def test_what_only_b_has_is_listed_and_strictly_a_difference(sides):
    root, diff = sides
    change(root / "b/auto/m/audit.json", lambda r: [s.update(news=1) for s in r["samples"]])
    code, said = diff()
    assert code == 0, said
    assert "only in B (no difference): audit.json#samples[*].news ×2" in said
    assert diff("--strict")[0] == 1


def test_a_file_that_went_is_a_difference(sides):
    root, diff = sides
    (root / "b/auto/m/audit.json").unlink()
    code, said = diff()
    assert code == 1
    assert "auto/m/audit.json: only in A, 'a file'" in said


def test_a_folder_without_values_ends_with_2(sides, tmp_path):
    root, diff = sides
    (root / "b/about.json").unlink()
    code, said = diff()
    assert code == 2
    assert "has no readable about.json" in said
