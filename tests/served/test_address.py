from __future__ import annotations

import pytest

from onnxfim.errors import ModelError
from onnxfim.served.address import address_of, names_address


@pytest.mark.parametrize(
    ("text", "base", "name", "version", "path"),
    [
        ("http://h:8000/v2/models/m", "http://h:8000", "m", None, "/v2/models/m"),
        ("HTTPS://h/v2/models/m/", "https://h", "m", None, "/v2/models/m"),
        ("http://h/v2/models/m/infer", "http://h", "m", None, "/v2/models/m"),
        ("http://h/v2/models/m/versions/3", "http://h", "m", "3", "/v2/models/m/versions/3"),
        ("http://[::1]:8/v2/models/a%20b", "http://[::1]:8", "a b", None, "/v2/models/a%20b"),
        ("https://gate/ns/x/v2/models/m", "https://gate/ns/x", "m", None, "/v2/models/m"),
    ],
)
def test_an_address_is_read(text, base, name, version, path):
    found = address_of(text)
    assert (found.base, found.name, found.version, found.path) == (base, name, version, path)
    assert found.url == base + path


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("http://me:secret@h/v2/models/m", "holds credentials"),
        ("http://token@h/v2/models/m", "holds credentials"),
        ("http://h/v2/models/m?key=secret", "holds a query"),
        ("http://h/v2/models/m#secret", "holds a query or a fragment"),
        ("http://h/models/m", "is no address of a model"),
        ("http://h/v2/models/", "is no address of a model"),
        ("http:///v2/models/m", "is no address of a model"),
        ("http://h:x/v2/models/m", "is no address"),
        ("http://h/v2/models/m\x1b[2J", "is no address of a model"),
    ],
)
def test_what_is_none_is_refused_without_its_secrets(text, why):
    with pytest.raises(ModelError, match=why) as refused:
        address_of(text)
    assert "secret" not in str(refused.value)
    assert "token@" not in str(refused.value)
    assert "\n" not in str(refused.value)
    assert "\x1b" not in str(refused.value)


def test_only_addresses_are_taken_for_them():
    assert names_address("http://h/v2/models/m")
    assert names_address("HTTPS://h")
    assert not any(map(names_address, ("model.onnx", "./http:/x", "file:///m.onnx", "ftp://h/m")))


@pytest.mark.parametrize(
    ("text", "secure"),
    [
        ("https://far/v2/models/m", True), ("http://127.0.0.1:1/v2/models/m", True), ("http://localhost/v2/models/m", True),
        ("http://far/v2/models/m", False), ("http://127.0.0.1.far/v2/models/m", False),
    ],
)  # fmt: skip
def test_who_may_read_what_is_sent(text, secure):
    assert address_of(text).secure is secure
