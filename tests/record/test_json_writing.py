import json
import math
from dataclasses import dataclass

import numpy as np
import pytest

from onnxfim.record.json_writing import as_json, json_parts
from onnxfim.record.layout import OPTIONAL, audit_text
from onnxfim.record.measures import MEASURES
from onnxfim.record.plain import to_plain
from tests.support.audits import VARIANTS


@dataclass(frozen=True)
class Inner:
    a: float | None
    b: tuple[float, ...] = ()


@dataclass(frozen=True)
class Outer:
    one: Inner | None
    many: tuple[Inner, ...]
    told: object
    words: str = 'ü "quoted" \n'


@dataclass(frozen=True)
class Single:
    only: int


VALUES = [
    None, True, False, 0, -3, 1.5, -0.0, 1e300, math.nan, math.inf, "ü", "", [], {}, (), [[]], [1.0, math.nan], [1.0, 2.5], [1e308, 1e308],
    np.float64(0.1), np.float32(0.1), np.int64(3), np.bool_(True), np.str_("s"), {1: (2.0, None), "k": {}},
    Single(3), Outer(Inner(math.nan), (), None), Outer(None, (Inner(0.0, (1.0, 2.0)), Inner(None)), {"x": [True, np.float64(2)]}),
]  # fmt: skip


@pytest.mark.parametrize("indent", [None, 1, 3])
@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_the_text_is_that_of_plain_values(value, indent):
    assert as_json(value, indent=indent) == json.dumps(to_plain(value), indent=indent, allow_nan=False)


def test_what_says_nothing_is_left_out():
    unsaid = {Inner: frozenset({"a", "b"})}
    assert as_json([Inner(None), Inner(math.nan), Inner(0.0, (1.0,)), Inner(np.float32(0)), Inner(np.int64(0))], unsaid=unsaid) == (
        '[{}, {}, {"a": 0.0, "b": [1.0]}, {"a": 0.0}, {}]'
    )


@pytest.mark.parametrize("name", VARIANTS)
def test_an_audit_is_written_as_its_layout_is_defined(name):
    audit = VARIANTS[name]()
    record = to_plain(audit)
    for sample in record["samples"]:
        for measure in MEASURES:
            estimate = sample.pop(measure.name)
            if estimate is not None:
                kept = {k: v for k, v in estimate.items() if k not in OPTIONAL or v or isinstance(v, float)}
                sample[measure.name] = kept
    found = json.loads(audit_text(audit, indent=1))
    assert {m["label"] for m in found.pop("measures").values()} == {m.label for m in MEASURES}
    assert found == record


@pytest.mark.parametrize("indent", [None, 1, 3])
@pytest.mark.parametrize("many", [0, 1, 255, 256, 257, 600])
def test_parts_make_the_whole_text(many, indent):
    value = {
        "a": 1,
        "b": [{"c": k, "d": [0.5, None]} for k in range(many)],
        "e": tuple(float(k) for k in range(many)),
        "f": {"g": []},
    }
    parts = list(json_parts(value, indent=indent))
    assert "".join(parts) == as_json(value, indent=indent)
    assert max(map(len, parts)) < 40_000
    assert "".join(json_parts({}, indent=indent)) == "{}"
