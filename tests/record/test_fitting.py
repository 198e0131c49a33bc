"""Values out of JSON: what fits is built, what does not is told by its path, and the published schema agrees."""

from __future__ import annotations

import json
import os
from contextlib import suppress

import numpy as np
import pytest
from jsonschema import Draft202012Validator

from onnxfim.errors import InputError, OutputError
from onnxfim.record.audit import Audit
from onnxfim.record.fitting import Misfit, from_plain
from onnxfim.record.layout import audit_from_dict
from onnxfim.record.plain import to_plain
from onnxfim.record.sample import Estimate
from onnxfim.record.schema import audit_schema
from onnxfim.report.comparison_html import render_comparison_html
from onnxfim.report.formats import FORMATS
from onnxfim.verdict import judge
from onnxfim.verdict.compare import compare
from tests.support.audits import gated, make_audit, with_bound, with_flips, with_replay
from tests.support.places import SUPPORT

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


def full() -> Audit:
    """An audit with every part that a file can have, and few of each."""
    return gated(with_bound(with_replay(with_flips(make_audit(3))), layers=1))


TEXTS = {"today": full().to_json(), "of layout 1": (SUPPORT / "audit-1.0.json").read_text("utf-8")}


def put(record, path, value):
    """The record with another value at the path; what is on the way is copied."""
    if not path:
        return value
    copied = dict(record) if isinstance(record, dict) else list(record)
    copied[path[0]] = value if len(path) == 1 else put(record[path[0]], path[1:], value)
    return copied


def without(record, path):
    copied = dict(record) if isinstance(record, dict) else list(record)
    if len(path) == 1:
        del copied[path[0]]
    else:
        copied[path[0]] = without(record[path[0]], path[1:])
    return copied


def places(record, at=()):
    """Every value and container, of lists the first."""
    yield at
    inner = record.items() if isinstance(record, dict) else list(enumerate(record))[:1] if isinstance(record, list) else ()
    for key, value in inner:
        yield from places(value, (*at, key))


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (("samples", 2, "lambda_max", "value"), "1.5", ("samples[2].lambda_max.value is a text", "expected a number or null")),
        (("samples", 0, "lambda_max", "value"), True, ("samples[0].lambda_max.value is a truth value", "a number or null")),
        (("samples", 0, "lambda_max", "kind"), "guess", ("kind is 'guess'", "expected one of 'exact', 'estimate'")),
        (("samples", 0, "lambda_max"), [], ("samples[0].lambda_max is a list", "expected an object")),
        (("samples", 0, "index"), 1.5, ("samples[0].index is 1.5", "expected a whole number of 0 or more")),
        (("samples", 0, "index"), -1, ("samples[0].index is -1", "expected a whole number of 0 or more")),
        (("samples", 1, "index"), 0, ("samples[1].index is 0, that of samples[0] too", "expected another")),
        (("samples", 0, "confidence"), 97.0, ("samples[0].confidence is 97.0", "expected a number from 0 to 1 or null")),
        (("samples", 0, "lambda_max", "vlaue"), 1, ("samples[0].lambda_max.vlaue is not a field that is known",)),
        (("samples", 0, "lambda_max", "at_temperatures"), [1.0], ("at_temperatures is a list of 1", "expected none or two")),
        (("samples", 0, "lambda_max", "replicates"), [1.0, "x"], ("lambda_max.replicates[1] is a text", "expected a number")),
        (("model", "bytes"), 10**400, ("model.bytes is a whole number of 1,329 bits", "fits into 64 bits")),
        (("run", "seconds"), 10**400, ("run.seconds is a whole number of 1,329 bits",)),
        (("run", "versions"), {"a\x1b[31m": 1}, (r"run.versions.'a\x1b[31m' is a number", "expected a text")),
        (("run", "times"), {"a": json.loads("[" * 60 + "]" * 60)}, ("is nested more than 32 deep",)),
        (("model", "input_shape"), [1.5], ("model.input_shape[0] is 1.5", "expected a whole number or a text or null")),
        (("settings", "attack_range"), [1.0], ("settings.attack_range is a list of 1", "expected a list of 2 or null")),
        (("settings", "budget"), 3, ("settings.budget is 3", "expected a whole number of 12 or more")),
        (("settings", "max_budget"), 12, ("settings cannot be: max_budget: 12",)),
        (("calibration", "temperature"), 0, ("calibration.temperature is 0.0", "expected a number above 0 or null")),
        (("verdict",), "x" * 300, ("verdict is 'xxx", "…", "expected one of 'measured', 'pass', 'fail', 'inconclusive'")),
        (("thumbnails", 0, "pixels"), [1, 2], ("thumbnails[0].pixels is a list of 2", "expected 64: height × width × channels")),
        (("directions", 0, "moved", "width"), 2**62, ("directions[0].moved.pixels is a list of 64",)),
        (("measures", "lambda_max", "sign"), 2, ("measures.lambda_max.sign is 2", "expected one of -1, 0, 1")),
        (("aggregates",), {}, ("aggregates.lambda_max is missing", "samples have values")),
        (("bound", "factors", 0, "log10_norm"), 1e308, ("bound.factors[0].log10_norm is 1e+308", "from -1e+06 to 1e+06")),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_told_by_its_path(told, path, value, words):
    record = json.loads(TEXTS["today"])
    if path[-1] == "max_budget":
        record["settings"]["precision"] = 0.1
    with pytest.raises(OutputError, match=told("audit JSON: ", *words, "Write it again with -o json=…")):
        Audit.from_json(json.dumps(put(record, path, value)))


@pytest.mark.parametrize(
    ("path", "words"),
    [
        (("samples", 0, "lambda_max", "value"), ("samples[0].lambda_max.value is missing", "expected a number or null")),
        (("samples", 0, "lambda_max"), ("samples[0].lambda_max is missing", "expected an object")),
        (("run",), ("run is missing", "expected an object")),
        (("units",), ("units is missing", "expected a text")),
        (("measures",), ("measures is missing", "expected an object")),
        (("measures", "trace", "units"), ("measures.trace.units is missing", "expected a text")),
    ],
)
def test_what_is_missing_is_told(told, path, words):
    with pytest.raises(OutputError, match=told("audit JSON: ", *words)):
        Audit.from_json(json.dumps(without(json.loads(TEXTS["today"]), path)))


@pytest.mark.parametrize("path", [("model", "opset"), ("model", "input_shape", 0)])
def test_whole_numbers_of_64_bits_are_read(told, path):  # a file may name any version of its operators
    record = json.loads(TEXTS["today"])
    for good in (-(2**63), 2**63 - 1):
        Audit.from_json(json.dumps(put(record, path, good)))
    for bad in (-(2**63) - 1, 2**63):
        with pytest.raises(OutputError, match=told("64 bits")):
            Audit.from_json(json.dumps(put(record, path, bad)))


def test_a_value_that_is_null_says_why(told):
    record = put(json.loads(TEXTS["today"]), ("samples", 0, "trace"), {"value": None, "low": None, "high": None, "kind": "exact"})
    with pytest.raises(OutputError, match=told("samples[0].trace.reason says nothing", "expected why value is null")):
        Audit.from_json(json.dumps(record))


def mutants(record, count):
    """So many records with one value of a wrong type, or one that is missing, and where."""
    wrong = ("text", -1, 0.5, 10**400, float("inf"), True, None, [], {}, [None], {"a": 1})
    every = [(path, value) for path in places(record) for value in (*wrong, without)]
    for at in np.random.default_rng(0).choice(len(every), count, replace=False):
        path, value = every[at]
        if path or value is not without:
            yield path, without(record, path) if value is without else put(record, path, value)


def read(record):
    """The audit, or the message."""
    try:
        return audit_from_dict(record)
    except OutputError as error:
        return str(error)


@pytest.mark.parametrize("file", sorted(TEXTS))
def test_a_value_of_a_wrong_type_is_read_or_told(file):
    results = [read(one) for _, one in mutants(json.loads(TEXTS[file]), 800)]
    assert all("\n" not in r for r in results if isinstance(r, str))
    assert 20 < sum(isinstance(r, Audit) for r in results) < 400  # other texts, numbers that may be null


def test_the_reader_takes_what_the_schema_takes():
    """But for what no schema can say: numbers of more than 64 bits or infinite, and what several fields say together."""
    fits = Draft202012Validator(audit_schema())
    beyond = ("height × width", "that of samples", "cannot be:", "none or two", "samples have values", "64 bits", "finite")
    for path, one in mutants(json.loads(TEXTS["today"]), 120):
        result = read(one)
        if not isinstance(result, str) or not any(words in result for words in beyond):
            assert fits.is_valid(one) == isinstance(result, Audit), (path, result)


def test_numbers_of_other_writers_of_json():
    record = json.loads(TEXTS["today"])
    record["samples"][0]["index"], record["samples"][0]["lambda_max"]["value"] = 0.0, 3
    got = Audit.from_json(json.dumps(record)).samples[0]
    assert (got.index, type(got.index), got.lambda_max.value, type(got.lambda_max.value)) == (0, int, 3.0, float)


def test_numbers_of_numpy_are_written_as_what_they_are():
    assert to_plain((np.bool_(True), np.int64(3), np.float32(0.5), np.float64("nan"))) == [True, 3, 0.5, None]
    assert to_plain(np.bool_(True)) is True


def test_a_record_alone():
    value = {"value": 1.0, "low": None, "high": None, "kind": "exact"}
    assert from_plain(Estimate, value) == Estimate(1.0, kind="exact")
    with pytest.raises(Misfit, match=r"^kind is missing, expected one of"):
        from_plain(Estimate, {"value": 1.0, "low": None, "high": None})
    with pytest.raises(Misfit, match=r"^the whole is a list, expected an object$"):
        from_plain(Estimate, [])


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("aggregates", "lambda_max_calibrated", "mean", "high"), -1.0),
        (("aggregates", "lambda_max_calibrated", "mean", "high"), -1e308),
        (("step", "step"), 0.0),
        (("settings", "epsilon"), 1e-30),
        (("samples", 0, "lambda_max", "value"), -1e308),
        (("samples", 0, "lambda_max", "value"), 1e308),
        (("samples", 0, "lambda_max", "high"), -1e308),
        (("samples", 0, "lambda_max_calibrated", "value"), 5e-324),
        (("samples", 0, "logit_sensitivity", "value"), -1.0),
        (("samples", 0, "flip_radius", "value"), -1.0),
    ],
)
def test_numbers_that_no_audit_gives_are_shown_and_compared(path, value):
    audit = Audit.from_json(json.dumps(put(json.loads(TEXTS["today"]), path, value)))
    assert all(render(audit) for render in FORMATS.values())
    with suppress(InputError):  # a mean of 0 has no ratio
        assert render_comparison_html(compare([full(), audit]))
        assert judge(audit, (), baseline=full()).comparison


class TestFiles:
    """What is no saved audit at all."""

    @pytest.mark.parametrize(
        ("content", "words"),
        [
            (b"", ("is empty",)),
            (b" \n", ("is empty",)),
            (POINTER, ("is a Git LFS pointer", "git lfs pull")),
            (POINTER.replace(b"\n", b"\r\n"), ("is a Git LFS pointer", "git lfs pull")),
            (b"[" * 100_000, ("cannot be parsed", "nested too deeply")),
            (b'{"a":' * 100_000, ("cannot be parsed", "nested too deeply")),
            (b'{"schema_version": NaN}', ("cannot be parsed", "NaN is no number of JSON")),
            (b'{"a": -Infinity}', ("cannot be parsed", "-Infinity is no number of JSON")),
            (b'{"a": 1, "a": 2}', ("cannot be parsed", "the key 'a' stands twice in one object")),
            (b'{"a": ' + b"9" * 5000 + b"}", ("cannot be parsed",)),
            (b'{"a": "\xff"}', ("cannot be parsed",)),
            (b"{", ("cannot be parsed",)),
            (b"null", ("no 'schema_version' field",)),
            (b'{"schema_version": "1.0", "entries": []}', ("is a comparison", "expected one audit")),
            (b'{"schema_version": "1.1", "entries": [], "samples": [{}]}', ("is a comparison", "expected one audit")),
            (b'{"schema_version": "3.0"}', ("schema_version is 3.0", "expected 2.0 or 1.0")),
            (b'{"schema_version": [2]}', ("schema_version is list", "expected 2.0 or 1.0")),
            (b'{"schema_version": "1.0"}', ("model is missing",)),
            (b'{"schema_version": "2.0", "measures": []}', ("measures is a list",)),
        ],
    )  # fmt: skip
    def test_one_line_says_what_it_is(self, tmp_path, told, content, words):
        path = tmp_path / "a.json"
        path.write_bytes(content)
        with pytest.raises(OutputError, match=told("a.json: ", *words)):
            Audit.load(path)

    @pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32-be"])
    def test_encodings_of_json_are_read(self, tmp_path, encoding):
        (tmp_path / "a.json").write_bytes(TEXTS["today"].encode(encoding))
        assert Audit.load(tmp_path / "a.json") == full()

    def test_numbers_beyond_floats(self, told):
        text = TEXTS["today"].replace('"seconds": ', '"seconds": 1e400, "was": ', 1)
        with pytest.raises(OutputError, match=told("run.seconds is not a finite number", "expected a number of 0 or more")):
            Audit.from_json(text)

    def test_what_is_no_file_is_not_waited_for(self, tmp_path, told):
        os.mkfifo(tmp_path / "pipe")
        (tmp_path / "ring").symlink_to("ring")
        for name, word in (
            ("pipe", "is a pipe or a device"),
            (".", "is a folder"),
            ("ring", "cannot be read"),
            ("no", "cannot be read"),
        ):
            with pytest.raises(OutputError, match=told(word)):
                Audit.load(tmp_path / name)
        with pytest.raises(OutputError, match=told("is no path")):
            Audit.load("a\0b")

    def test_two_gigabytes_are_not_read(self, tmp_path, told):
        (tmp_path / "a.json").touch()
        os.truncate(tmp_path / "a.json", 2**31)  # sparse: it takes no room
        with pytest.raises(OutputError, match=told("2,147,483,648 bytes", "expected at most 1,073,741,824")):
            Audit.load(tmp_path / "a.json")
