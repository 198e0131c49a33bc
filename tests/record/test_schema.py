import copy
import dataclasses
import json
from importlib import resources

import pytest
from jsonschema import Draft202012Validator, ValidationError

from onnxfim.record import audit as audits
from onnxfim.record import bound, decision, sample, settings
from onnxfim.record.audit import Audit
from onnxfim.record.layout import OPTIONAL
from onnxfim.record.measures import MEASURES
from tests.support.audits import VARIANTS, make_audit, with_bound, with_replay

#: Every record type by its name.
TYPES = {n: t for m in (audits, bound, decision, sample, settings) for n, t in vars(m).items() if dataclasses.is_dataclass(t)}
SCHEMA = json.loads(resources.files("onnxfim").joinpath("record/audit.schema.json").read_text("utf-8"))


#: Fields that came after the first version, so that older files still fit.
LATER = {
    "Audit": {"gradient", "directions", "attack", "architecture", "bound", "closed_forms"},
    "Sample": {"top_eigenvalues", "kl_curve"} | {m.name for m in MEASURES if m.optional},
    "Estimate": set(OPTIONAL),
    "Settings": {"replay", "attack", "epsilon", "attack_range", "attack_samples", "surrogate", "bounds"},
    "Factor": {"shape", "kind", "note"},
    "Bound": {"shares"},
    "StepChoice": {"clipped"},
    "ModelInfo": {"doubt"},
    "Run": {"provider_missed"},
}


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
    kind = TYPES[{"Sample": "SampleResult"}.get(name, name)]
    fields = {f.name for f in dataclasses.fields(kind)}
    assert set(definition["properties"]) == fields
    assert set(definition["required"]) == fields - LATER.get(name, set())
    assert definition["description"]


def test_top_level_fields():
    fields = {f.name for f in dataclasses.fields(Audit)}
    assert set(SCHEMA["properties"]) == fields | {"measures"}
    assert set(SCHEMA["required"]) == (fields | {"measures"}) - LATER["Audit"]


def test_older_files_fit():
    record = json.loads(make_audit(3).to_json())
    parts = {"Audit": [record], "Sample": record["samples"], "Settings": [record["settings"]]}
    for name, values in parts.items():
        for value in values:
            for field in LATER[name]:
                value.pop(field, None)
    Draft202012Validator(SCHEMA).validate(record)
    assert Audit.from_json(json.dumps(record)) == make_audit(3)


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
        (("schema_version",), "3.0"),
        (("run", "temperature"), None),
        (("samples", 0, "lambda_max", "kind"), "guess"),
        (("samples", 0, "lambda_max", "vlaue"), 1.0),
        (("samples", 0, "trace"), None),
        (("aggregates", "lambda_max", "p95"), None),
        (("findings", 0, "level"), "info"),
        (("thumbnails", 0, "pixels"), [256]),
        (("calibration", "accuracy"), 97.0),
    ],
)
def test_what_does_not_fit_is_refused(path, value):
    with pytest.raises(ValidationError):
        Draft202012Validator(SCHEMA).validate(spoil(json.loads(make_audit(3).to_json()), path, value))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("attack", "norm"), "l1"),
        (("attack", "robust_accuracy"), 42.0),
        (("attack", "correlations", 0, "coefficient"), -1.5),
        (("directions", 0, "role"), "first"),
        (("directions", 0, "direction", "pixels"), [-1]),
        (("directions", 0, "largest"), [[1, 2.0, 3.0]]),
        (("gradient", "used"), "yes"),
        (("samples", 0, "kl_curve", "points", 0, "along"), None),
        (("samples", 0, "kl_curve", "points", 0, "along"), "much"),
        (("samples", 0, "attack_distance", "kind"), "guess"),
        (("samples", 0, "attack_distance"), "far"),
        (("samples", 0, "log10_fisher_bound"), "high"),
        (("closed_forms", 0, "formula"), None),
        (("samples", 0, "top_eigenvalues"), [None]),
        (("architecture", "family"), "cnn"),
        (("bound", "factors", 0, "log10_norm"), None),
        (("bound", "reason"), None),
        (("settings", "attack"), "l1"),
    ],
)
def test_what_does_not_fit_the_replay_is_refused(path, value):
    record = json.loads(with_bound(with_replay(make_audit(5))).to_json())
    with pytest.raises(ValidationError):
        Draft202012Validator(SCHEMA).validate(spoil(record, path, value))


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
