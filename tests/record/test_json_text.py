"""JSON from outside: keys that stand twice are found, whatever the text looks like; the search for cycles goes on afterwards."""

from __future__ import annotations

import gc
import json

import pytest

from onnxfim.errors import OutputError
from onnxfim.record.json_text import parsed, uncollected

#: A quote and a colon in a text look like the end of a key.
LOOKALIKE = r'"k": "x\": y"'


@pytest.mark.parametrize(
    "text",
    [
        '{"a": 1, "a": 2}',
        '{"a":1,"a":2}',
        '{"a" : 1, "a" : 2}',
        '{"a"\n: 1, "a": 2}',
        '[{"b": {"a": 1, "a": 2}}]',
        "{" + LOOKALIKE + ', "a": 1, "a": 2}',
        '{"a": 1, ' + LOOKALIKE + ', "a" : 2}',
    ],
)
@pytest.mark.parametrize("encoding", [None, "utf-8", "utf-8-sig", "utf-16", "utf-32-le"])
def test_a_key_that_stands_twice_is_told(text, encoding):
    with pytest.raises(OutputError, match="the key 'a' stands twice"):
        parsed(text if encoding is None else text.encode(encoding), where="it")


@pytest.mark.parametrize(
    "value",
    [{}, [], {"a": {"a": {}}, "b": [{"a": 1}, {"a": 2}]}, {"a": 'x": y', 'b": ': 1}, {"a : b": 2, "c": "d : e"}, {"㨢": "㨢"}],
)
@pytest.mark.parametrize("indent", [None, 1])
def test_texts_without_are_read_as_they_are(value, indent):
    for ascii_only in (True, False):
        text = json.dumps(value, indent=indent, ensure_ascii=ascii_only)
        assert parsed(text, where="it") == value
        assert parsed(text.encode("utf-16"), where="it") == value


def test_the_search_for_cycles_goes_on_as_before():
    assert gc.isenabled()
    with uncollected():
        assert not gc.isenabled()
    assert gc.isenabled()
    gc.disable()
    try:
        with uncollected():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
