import copy
import dataclasses
import json
from importlib import resources

import pytest
from jsonschema import Draft202012Validator, ValidationError

from onnxfim import results
from onnxfim.results import Audit
from tests.audits import VARIANTS, make_audit

SCHEMA = json.loads(resources.files("onnxfim").joinpath("schema/audit.schema.json").read_text("utf-8"))


@pytest.fixture(params=sorted(VARIANTS))
def audit(request):
    return VARIANTS[request.param]()


def test_the_schema_is_one():
    Draft202012Validator.check_schema(SCHEMA)


def test_every_audit_fits(audit):
    text = audit.to_json()
    Draft202012Validator(SCHEMA).validate(json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} in the JSON")))


def test_round_trip(audit):
    assert Audit.from_json(audit.to_json()) == audit


@pytest.mark.parametrize("name", sorted(SCHEMA["$defs"]))
def test_definitions_name_the_fields_of_their_types(name):
    definition = SCHEMA["$defs"][name]
    extra = {"Sample": {"intervals"}, "Sketch": {f.name for f in dataclasses.fields(results.Estimate)} - {"estimate"}}
    kind = getattr(results, {"Sample": "SampleResult"}.get(name, name))
    fields = ({f.name for f in dataclasses.fields(kind)} | extra.get(name, set())) - ({"estimate"} if name == "Sketch" else set())
    assert set(definition["properties"]) == set(definition["required"]) == fields
    assert definition["description"]


def test_top_level_fields():
    fields = {f.name for f in dataclasses.fields(Audit)}
    assert set(SCHEMA["properties"]) == set(SCHEMA["required"]) == fields


def spoil(record, path, value):
    record = copy.deepcopy(record)
    *way, last = path
    target = record
    for key in way:
        target = target[key]
    if value is None:
        del target[last]
    else:
        target[last] = value
    return record


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("verdict",), "maybe"),
        (("schema_version",), "2.0"),
        (("run", "temperature"), None),
        (("samples", 0, "lambda_max", "kind"), "guess"),
        (("samples", 0, "lambda_max", "vlaue"), 1.0),
        (("samples", 0, "intervals", "trace"), None),
        (("aggregates", "lambda_max", "p95"), None),
        (("findings", 0, "level"), "info"),
        (("thumbnails", 0, "pixels"), [256]),
        (("calibration", "accuracy"), 97.0),
    ],
)
def test_what_does_not_fit_is_refused(path, value):
    with pytest.raises(ValidationError):
        Draft202012Validator(SCHEMA).validate(spoil(json.loads(make_audit(3).to_json()), path, value))


def test_a_missing_value_needs_its_reason():
    record = json.loads(make_audit(3).to_json())
    record["samples"][0]["lambda_max"].update(value=None, reason=None)
    with pytest.raises(ValidationError):
        Draft202012Validator(SCHEMA).validate(record)


def test_later_minor_versions_may_add_fields():
    record = json.loads(make_audit(3).to_json())
    record["run"]["device"] = record["samples"][0]["norm"] = record["novelty"] = "new"
    Draft202012Validator(SCHEMA).validate(record)
    assert Audit.from_json(json.dumps(record)) == make_audit(3)
