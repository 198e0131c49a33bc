import copy
import dataclasses
import json
from collections.abc import Mapping
from typing import Any, Literal

import pytest
from jsonschema import Draft202012Validator, ValidationError

from onnxfim.errors import OutputError
from onnxfim.record import audit as audits
from onnxfim.record import (
    bound,
    data_info,
    decision,
    guarantee_summaries,
    guarantees,
    identity,
    input_pictures,
    placed,
    provider_option,
    robustness,
    running,
    sample,
    schema,
    settings,
    steps,
    ties,
)
from onnxfim.record.audit import Audit
from onnxfim.record.layout import OPTIONAL
from onnxfim.record.limits import ALWAYS, Count, Part, closed, needed_where
from onnxfim.record.measures import MEASURES
from onnxfim.record.sample import estimate_of
from onnxfim.record.schema import audit_schema
from tests.support.audits import VARIANTS, make_audit, with_bound, with_replay
from tests.support.places import SUPPORT
from tests.support.tracing import untraced

#: Every record type by its name.
TYPES = {
    n: t
    for m in (
        audits,
        bound,
        data_info,
        decision,
        guarantee_summaries,
        guarantees,
        identity,
        input_pictures,
        placed,
        provider_option,
        robustness,
        running,
        sample,
        settings,
        steps,
        ties,
    )
    for n, t in vars(m).items()
    if dataclasses.is_dataclass(t)
}
SCHEMA = audit_schema()


#: Fields that came after the first version, so that older files still fit.
OF_GUARANTEES = {"predicted", "bracket", "noise", "smoothed", "verified"}
LATER = {
    "ScalingCheck": {"unchecked"},
    "Audit": {
        "identity",
        "direction_summary",
        "robustness",
        "gradient",
        "directions",
        "attack",
        "architecture",
        "bound",
        "closed_forms",
        "rows",
        "bracket",
        "noise",
        "smoothing",
        "verifier",
    },
    "BaselineComparison": {"typical", "decided_by"},
    "SampleResult": {"top_eigenvalues", "kl_curve", "leading_feature", "flip_lengths", *OF_GUARANTEES}
    | {m.name for m in MEASURES if m.optional},
    "Estimate": set(OPTIONAL),
    "Settings": {f.name for f in dataclasses.fields(settings.Settings)},
    "Factor": {"note"},
    "Bound": {"shares", "of_what_was_read"},
    "StepChoice": {"clipped", "per_coordinate", "bias", "rounding", "unchosen"},
    "GradientInfo": {"check", "no_check", "ties", "provider", "provider_reason"},
    "FailedStage": {"node"},
    "Identity": {"date", "command", "title", "note", "meta", "host", "asked", "files"},
    "InputInfo": {"at"},
    "FlipLengths": {"raw", "standardised"},
    "SurvivalCurve": {"ladder"},
    "ReferencePlace": {"like"},
    "Bracket": {"first_order", "fisher"},
    "NoiseStability": {"reason"},
    "Smoothed": {"reason"},
    "SmoothingSummary": {"caveat", "reason", "median", "average"},
    "VerifiedBox": {"replay", "distance", "note", "control", "believed"},
    "Robustness": {"certified", "guaranteed_by", "place", "no_place"},
    "VerifierSummary": {"reason", "model", "model_sha256", "disbelieved", "without_control", "control_open"},
    "RowCheck": {"apart", "beside_moved", "batch_rows", "batches", "largest"},
    "Ties": {"nodes"},
    "ModelInfo": {"doubt", "class_axis", "batch_axis", "axes_from", "no_slope", "at", "outputs", "inputs", "served"},
    "OutputInfo": {"of"},
    "DirectionPicture": {"positions", "traces"},
    "DataInfo": {"labelled", "chance", "scaling", "apart", "classes_guessed", "feature_names", "input_kind"},
    "Run": {
        "provider_missed",
        "provider_options",
        "provider_plugin",
        "tf32_doubt",
        "provider_remedy",
        "installation",
        "placement",
        "stopped",
        "interrupted_by",
        "failed_stages",
        "restarts",
        "custom_libraries",
        "model_changed",
        "providers_available",
    },
}


@pytest.fixture(params=sorted(VARIANTS))
def audit(request):
    return VARIANTS[request.param]()


def test_the_schema_is_one():
    Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.slow
def test_every_audit_fits(audit):
    text = audit.to_json()
    with untraced():
        Draft202012Validator(SCHEMA).validate(json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} in the JSON")))


def test_round_trip(audit):
    assert Audit.from_json(audit.to_json()) == audit


@pytest.mark.parametrize("name", sorted(SCHEMA["$defs"]))
def test_definitions_name_the_fields_of_their_types(name):
    definition = SCHEMA["$defs"][name]
    kind = TYPES[name]
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
    parts = {"Audit": [record], "SampleResult": record["samples"], "Settings": [record["settings"]]}
    for name, values in parts.items():
        for value in values:
            for field in LATER[name]:
                value.pop(field, None)
    Draft202012Validator(SCHEMA).validate(record)
    assert Audit.from_json(json.dumps(record)) == dataclasses.replace(make_audit(3), identity=None)


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


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("model", "bytes"), -1),
        (("run", "seconds"), -0.1),
        (("samples", 0, "index"), -1),
        (("samples", 0, "confidence"), 1.01),
        (("samples", 0, "lambda_max", "evaluations"), 1.5),
        (("thumbnails", 0, "channels"), 2),
        (("thumbnails", 0, "height"), 0),
        (("step", "scheme"), "sideways"),
        (("step", "curve", 0, "unchanged"), -0.1),
        (("calibration", "accuracy_low"), -0.01),
        (("aggregates", "lambda_max", "mean", "sd"), 1.0),
        (("aggregates", "lambda_max", "mean", "confidence"), 2.0),
        (("settings", "attack_range"), [1.0]),
        (("measures", "lambda_max", "sign"), 2),
        (("measures",), None),
        (("data", "class_names"), [1]),
        (("model", "input_shape"), [1.5]),
    ],
)
def test_limits_of_numbers_and_lists(path, value):
    with pytest.raises(ValidationError):
        Draft202012Validator(SCHEMA).validate(spoil(json.loads(make_audit(3).to_json()), path, value))


@closed
@dataclasses.dataclass(frozen=True)
class Novelty:
    """What a later version may hold.

    Told in a second paragraph.

    Attributes:
        share, other: Two in
            one entry.
        why: A reason.
    """

    share: Part
    other: Part | None
    counts: tuple[Count, ...]
    pair: tuple[int, str]
    words: Mapping[str, str]
    free: Mapping[str, Any]
    either: int | str | None
    named: Literal["a", "b"] | None
    limited: float = dataclasses.field(default=1.0, metadata={"over": 0, "under": 2})
    kept: str = dataclasses.field(default="", metadata=ALWAYS)
    why: str | None = dataclasses.field(default=None, metadata=needed_where("other", None))


def test_a_record_is_its_own_schema():
    found = schema._record(Novelty, {})
    assert found["description"] == "What a later version may hold. Told in a second paragraph."
    assert found["required"] == ["share", "other", "counts", "pair", "words", "free", "either", "named", "kept"]
    assert found["additionalProperties"] is False
    told = {"description": "Two in one entry."}
    assert found["properties"] == {
        "share": {"type": "number", "minimum": 0, "maximum": 1, **told},
        "other": {"type": ["number", "null"], "minimum": 0, "maximum": 1, **told},
        "counts": {"type": "array", "items": {"type": "integer", "minimum": 0}},
        "pair": {"type": "array", "prefixItems": [{"type": "integer"}, {"type": "string"}], "items": False, "minItems": 2},
        "words": {"type": "object", "additionalProperties": {"type": "string"}},
        "free": {"type": "object"},
        "either": {"type": ["integer", "string", "null"]},
        "named": {"type": ["string", "null"], "enum": ["a", "b", None]},
        "limited": {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 2},
        "kept": {"type": "string"},
        "why": {"type": ["string", "null"], "description": "A reason."},
    }
    assert found["if"] == {"required": ["other"], "properties": {"other": {"const": None}}}
    assert found["then"] == {"required": ["why"], "properties": {"why": {"type": "string", "minLength": 1}}}


def test_a_new_field_touches_its_record_alone():
    wider = dataclasses.make_dataclass(
        "Skipped", [("cost", Count, dataclasses.field(default=0))], bases=(sample.Skipped,), frozen=True
    )
    wider.__doc__ = "A sample that was not audited, and what was spent on it."
    found = schema._record(wider, {})
    assert found["properties"]["cost"] == {"type": "integer", "minimum": 0}
    assert "cost" not in found["required"]


class TestLayout1:
    """A file that 0.1.0 wrote, as it wrote it."""

    OLD = json.loads((SUPPORT / "audit-1.0.json").read_text("utf-8"))

    def test_it_is_read(self):
        audit = Audit.from_json(json.dumps(self.OLD))
        assert audit.schema_version.startswith("2.")
        for one, old in zip(audit.samples, self.OLD["samples"], strict=True):
            for name in ("lambda_max", "lambda_max_calibrated"):
                assert estimate_of(one, name).value == old[name]["value"]
                assert estimate_of(one, name).plain == old[name]["plain"]
            for name in ("trace", "boundary_distance", "logit_sensitivity", "attack_distance"):
                assert estimate_of(one, name).value == old[name]
                assert estimate_of(one, name).low == old["intervals"][name]["low"]
                assert estimate_of(one, name).kind == old["intervals"][name]["kind"]
            assert one.effective_rank.value == old["effective_rank"]
            assert one.log10_fisher_bound.value == old["log10_fisher_bound"]
            assert one.lambda_max_raw_units.value == old["lambda_max_raw_units"]["value"]
        assert (self.OLD["verdict"], self.OLD["gates"], audit.verdict) == ("pass", [], "measured")  # nothing was to be passed
        assert audit.attack.median_distance == self.OLD["attack"]["median_distance"]

    def test_it_is_written_anew_in_the_layout_of_today(self):
        record = json.loads(Audit.from_json(json.dumps(self.OLD)).to_json())
        Draft202012Validator(SCHEMA).validate(record)
        assert Audit.from_json(json.dumps(record)) == Audit.from_json(json.dumps(self.OLD))

    def test_what_does_not_fit_is_one_line(self, told):
        broken = {**self.OLD, "samples": [{**self.OLD["samples"][0], "intervals": None}]}
        with pytest.raises(
            OutputError,
            match=told("audit JSON: samples[0].intervals is no object", "expected the estimates of layout 1", "Write it again"),
        ):
            Audit.from_json(json.dumps(broken))

    def test_later_versions_are_refused(self, told):
        with pytest.raises(
            OutputError, match=told("schema_version is 3.0", "expected 2.0 or 1.0", "Use the onnxfim that wrote it")
        ):
            Audit.from_json(json.dumps({**self.OLD, "schema_version": "3.0"}))
