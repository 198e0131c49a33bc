"""Secrets leave the words of a command; all else stays as it was typed."""

from __future__ import annotations

import time

import pytest

from onnxfim.record.redacting import (
    REDACTED,
    names_a_secret,
    pairs_without_secrets,
    value_without_secrets,
    without_secrets,
    words_without_secrets,
)

SECRET = "s3cr3tValue9"
PLAIN = [
    "model.onnx", "--data", "a=b.npz", "-o", "json=out.json", "--inputs-key", "x", "--labels-key=y", "--fail-on", "lambda_max.p95 > 12.5",
    "--provider-option", "cuda:device_id=1", "--meta", "author=Jane", "--meta", "keyboard=de", "https://example.org/a?page=2&count=3",
    "user@example.org", "--shape", "tokens:[N,16]", "--feed", "attention=ones", "--at", "monkey", "sk-learn", "git@host:repo",
]  # fmt: skip


def test_plain_words_stay():
    assert words_without_secrets(PLAIN) == tuple(PLAIN)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--meta", f"api-key={SECRET}"), ("--meta", f"api-key={REDACTED}")),
        (("--meta", f"HF_TOKEN={SECRET}"), ("--meta", f"HF_TOKEN={REDACTED}")),
        (("--meta", f"dbPassword={SECRET}=="), ("--meta", f"dbPassword={REDACTED}")),
        ((f"--meta=client_secret={SECRET}",), (f"--meta=client_secret={REDACTED}",)),
        (("--provider-option", f"vitisai:encryption_key={SECRET}"), ("--provider-option", f"vitisai:encryption_key={REDACTED}")),
        (("--token", SECRET, "model.onnx"), ("--token", REDACTED, "model.onnx")),
        ((f"--auth-token={SECRET}",), (f"--auth-token={REDACTED}",)),
        ((f"https://jane:{SECRET}@host/x.npz",), (f"https://{REDACTED}@host/x.npz",)),
        ((f"--data=s3://{SECRET}@bucket/x",), (f"--data=s3://{REDACTED}@bucket/x",)),
        ((f"https://host/x?X-Amz-Signature={SECRET}&page=1",), (f"https://host/x?X-Amz-Signature={REDACTED}&page=1",)),
        (("ghp_" + "a1B2" * 9,), (REDACTED,)),
        (("--note", f"curl -H 'Authorization: Bearer {SECRET}'"), ("--note", f"curl -H 'Authorization: Bearer {REDACTED}'")),
    ],
)  # fmt: skip
def test_secrets_go(words, expected):
    found = words_without_secrets(words)
    assert found == expected
    assert not any(SECRET in word for word in found)


@pytest.mark.parametrize(
    "name", ["token", "API_KEY", "apikey", "sshKey", "x-secret", "passwd", "Authorization", "aws_secret_access_key"]
)
def test_names_of_secrets(name):
    assert names_a_secret(name)
    assert value_without_secrets(name, SECRET) == REDACTED


@pytest.mark.parametrize("name", ["owner", "author", "tokenizer", "keyboard", "passage", "authority", "ticket", ""])
def test_other_names(name):
    assert not names_a_secret(name)
    assert value_without_secrets(name, "plain text") == "plain text"


@pytest.mark.parametrize("words", [("--feed", "token_type_ids=zeros"), ("--feed=token_type_ids=zeros",), ("--shape", "key=[N,3]")])
def test_names_of_inputs_are_no_secrets(words):
    assert words_without_secrets(words) == words


def test_options_of_providers_lose_their_secrets():
    pairs = ("device_id=1", f"openvino:api_key={SECRET}", "a=b=c", f"url=https://jane:{SECRET}@host")
    assert pairs_without_secrets(pairs) == ("device_id=1", f"openvino:api_key={REDACTED}", "a=b=c", f"url=https://{REDACTED}@host")


def test_twice_does_no_harm():
    once = words_without_secrets(("--meta", f"token={SECRET}", f"https://a:{SECRET}@h"))
    assert words_without_secrets(once) == once


@pytest.mark.parametrize(
    "text",
    [
        "a" * 100_000,
        "https://" + "a" * 50_000,
        "?" * 50_000,
        "=" * 50_000,
        "eyJ" * 30_000,
        "eyJ-" * 20_000,
        "a://" * 20_000,
        "?a" * 50_000,
        "bearer " * 20_000,
        "a=" * 50_000,
    ],
)
def test_long_words_take_no_time(text):
    before = time.process_time()
    assert without_secrets(text)
    assert words_without_secrets([text, f"--{text}"])
    assert time.process_time() - before < 5, "the square of the length takes minutes"
