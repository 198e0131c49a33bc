"""The report id: the hash of what was asked, and of nothing else."""

from __future__ import annotations

import hashlib
import json

import pytest

from onnxfim.record.report_id import asked_of_several, asked_text, report_id
from onnxfim.record.settings import SETTINGS, Settings

ASKED = {"model": "a" * 64, "data": "b" * 64}


def asked(settings=None, **others):
    return asked_text(ASKED["model"], ASKED["data"], settings or Settings(), **others)


def test_the_definition():
    """Written out, so that a change of it is seen: ids that were printed must stay what they are."""
    text = asked(
        Settings(samples=100, method="sketch", temperature=1.5, input_scale=(2.0, 4.0)),
        prepared={"std": (0.5,), "layout": "NCHW"},
        held="mask 1",
        libraries=["c" * 64],
    )
    assert text == (
        f'{{"data":"{"b" * 64}","held":"mask 1","id":1,"libraries":["{"c" * 64}"],"model":"{"a" * 64}",'
        '"prepared":{"layout":"NCHW","std":[0.5]},'
        '"settings":{"input_scale":[2.0,4.0],"method":"sketch","samples":100,"temperature":1.5}}'
    )
    assert report_id(text) == hashlib.sha256(text.encode("ascii")).hexdigest()


def test_defaults_are_left_out():
    assert json.loads(asked()) == {"id": 1, **ASKED, "settings": {}}


#: What moves no number of an audit, or moves it by its content, which has a hash of its own.
LEFT_OUT = {
    "batch": 7,
    "require_provider": True,
    "provider_libraries": ("a=/b",),
    "custom_op_libraries": ("/b",),
    "feed": ("m=ones",),
    "verifier_jobs": 3,
}


@pytest.mark.parametrize("name", sorted(LEFT_OUT))
def test_what_is_left_out(name):
    assert asked(Settings(**{name: LEFT_OUT[name]})) == asked()


def test_nothing_else_is_left_out():
    assert {s.name for s in SETTINGS if not s.facts.identifies} == set(LEFT_OUT)


@pytest.mark.parametrize(
    "given",
    [{"seed": 1}, {"step": 0.1}, {"at": "e"}, {"temperature": 2.0}, {"providers": ("cpu",)}, {"tf32": True}, {"attack": "l2"}],
)
def test_what_enters(given):
    assert asked(Settings(**given)) != asked()


@pytest.mark.parametrize("given", [{"prepared": {"mean": (0.5,)}}, {"held": "x"}, {"libraries": ["c"]}, {"libraries": [None]}])
def test_what_else_enters(given):
    assert asked(**given) != asked()


def test_the_largest_budget_enters_with_a_precision_alone():
    assert asked(Settings(max_budget=5000)) == asked()
    precise = {"precision": 0.1}
    assert asked(Settings(max_budget=5000, **precise)) != asked(Settings(**precise))


def test_hostile_text_is_ascii():
    text = asked(Settings(at="\udc80\u202e\n", output='"'))
    assert text.isascii()
    assert text.isprintable()
    assert json.loads(text)["settings"] == {"at": "\udc80\u202e\n", "output": '"'}


def test_several_in_their_order():
    assert asked_of_several(["a", "b"], measure="m", seed=0) != asked_of_several(["b", "a"], measure="m", seed=0)
    assert json.loads(asked_of_several(["a"], seed=3)) == {"id": 1, "compared": ["a"], "seed": 3}
