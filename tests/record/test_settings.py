"""Each setting that cannot be is refused in one line; the documentation is made of the declarations."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, fields
from typing import Literal

import pytest

from onnxfim.errors import SettingsError
from onnxfim.record.declared import Facts, check, documented, setting, settings_of
from onnxfim.record.settings import SETTINGS, Settings

POSITIVE = "is not a positive number."


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"samples": 0}, "samples: 0 is not a positive number of samples."),
        ({"method": "guess"}, "method: 'guess' is not auto, gradient, sketch or exact."),
        ({"budget": 11}, "budget: 11 forward passes per sample are too few; give at least 12."),
        ({"precision": 0.0}, "precision: 0.0 is not between 0 and 100 %."),
        ({"precision": 1.0}, "precision: 1.0 is not between 0 and 100 %."),
        ({"precision": math.nan}, "precision: nan is not between 0 and 100 %."),
        ({"precision": 0.1, "max_budget": 50}, "max_budget: 50 is less than the budget of 101."),
        ({"step": 0.0}, f"step: 0.0 {POSITIVE}"),
        ({"step": math.inf}, f"step: inf {POSITIVE}"),
        ({"step": math.nan}, f"step: nan {POSITIVE}"),
        ({"step": 1e-31}, "step: 1e-31 is no size to compute with. Give one from 1e-30 to 1e+30."),
        ({"sigma": 1e300}, "sigma: 1e+300 is no size to compute with. Give one from 1e-30 to 1e+30."),
        ({"temperature": 1e-300}, "temperature: 1e-300 is no size to compute with. Give one from 1e-30 to 1e+30."),
        ({"attack_range": (-1e300, 1.0)}, "attack_range: -1e+300 is no size to compute with. Give one from 1e-30 to 1e+30."),
        ({"scheme": "sideways"}, "scheme: 'sideways' is not auto, forward, central or dithered."),
        ({"seed": -1}, "seed: -1 is not between 0 and 2^63 - 1."),
        ({"seed": 2**63}, f"seed: {2**63} is not between 0 and 2^63 - 1."),
        ({"batch": 0}, "batch: 0 is not a positive number of rows."),
        ({"providers": ()}, "providers: none is named; give at least one, such as 'auto' or 'cpu'."),
        (
            {"output_kind": "odd"},
            "output_kind: 'odd' is not auto, logits, probabilities, sigmoid, gaussian, embedding or detection.",
        ),
        ({"temperature": -1.0}, f"temperature: -1.0 {POSITIVE}"),
        ({"score_threshold": 1.0}, "score_threshold: 1.0 is not more than 0 and less than 1."),
        ({"sigma": 0.0}, f"sigma: 0.0 {POSITIVE}"),
        ({"replay": -1}, "replay: -1 is not a number of samples."),
        ({"attack": "l1"}, "attack: 'l1' is not l2 or linf."),
        ({"epsilon": 0.0}, f"epsilon: 0.0 {POSITIVE}"),
        ({"attack_range": (1.0, 1.0)}, "attack_range: (1.0, 1.0) is not a smaller and a larger number."),
        ({"attack_samples": 0}, "attack_samples: 0 is not a positive number of samples."),
    ],
    ids=str,
)
def test_what_cannot_be(given, message):
    with pytest.raises(SettingsError, match=f"^{re.escape(message)}$"):
        Settings(**given)


@pytest.mark.parametrize(
    "given",
    [
        {"samples": 1}, {"budget": 12}, {"precision": 0.1, "max_budget": 101}, {"max_budget": 50}, {"step": 1e-30},
        {"seed": 2**63 - 1}, {"batch": 1}, {"replay": 0}, {"attack_range": (0.0, 1.0)}, {"attack_samples": 1},
    ],
    ids=str,
)  # fmt: skip
def test_what_just_can_be(given):
    settings = Settings(**given)
    assert {name: getattr(settings, name) for name in given} == given


def test_every_setting_has_its_help_in_the_documentation():
    for declared in SETTINGS:
        assert f"\n    {declared.name}: {declared.facts.help}" in Settings.__doc__


def test_helps_are_sentences():
    for declared in SETTINGS:
        assert declared.facts.help.endswith("."), declared.name
        assert "{" not in declared.facts.help, declared.name


def test_limits_stand_in_the_metadata_of_the_field():
    found = {f.name: dict(f.metadata) for f in fields(Settings)}
    assert found["budget"]["least"] == 12
    assert (found["precision"]["over"], found["precision"]["under"]) == (0, 1)
    assert set(found["tf32"]) == {"facts"}


def test_those_that_go_together_are_settings():
    names = {s.name for s in SETTINGS}
    assert {s.facts.with_setting for s in SETTINGS} <= names | {""}


# what a declaration says when it says little


@documented
@dataclass(frozen=True)
class Little:
    """Of few words."""

    count: int = setting(3, help="How many.", least=1, most=4)
    share: float = setting(0.5, help="How much.", least=0, under=1)
    floor: float | None = setting(None, help="From where.", least=2)
    even: int = setting(2, help="Even.", good=lambda s: s.even % 2 == 0)
    word: Literal["a", "b"] | None = setting(None, help="Which.")

    def __post_init__(self):
        check(self)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"count": 0}, "count: 0 is not at least 1 and at most 4."),
        ({"count": 5}, "count: 5 is not at least 1 and at most 4."),
        ({"share": 1.0}, "share: 1.0 is not at least 0 and less than 1."),
        ({"floor": math.inf}, "floor: inf is not at least 2."),
        ({"even": 3}, "even: 3 is not what it may be."),
        ({"word": "c"}, "word: 'c' is not a or b."),
    ],
)
def test_the_message_that_limits_give(given, message):
    with pytest.raises(SettingsError, match=f"^{re.escape(message)}$"):
        Little(**given)


def test_what_a_declaration_tells():
    count, share, floor, _, word = settings_of(Little)
    assert (count.name, count.kind, count.optional, count.option, count.label) == ("count", int, False, "count", "Count")
    assert (share.kind, share.default, share.choices) == (float, 0.5, ())
    assert (floor.kind, floor.optional) == (float, True)
    assert (word.choices, word.optional) == (("a", "b"), True)
    assert Little.__doc__.startswith("Of few words.\n\nAttributes:\n    count: How many.\n")


def test_an_unknown_fact_is_a_mistake():
    with pytest.raises(TypeError, match="colour"):
        setting(1, help="One.", colour="red")
    assert Facts(help="One.").option == ""
