"""What a report says of a model that was asked at an address, in words."""

from __future__ import annotations

from onnxfim.record.audit import ModelInfo
from onnxfim.record.foreign_text import visible
from onnxfim.record.served import Served

#: What is to be known of weights that nobody saw.
UNSEEN = "not seen: they cannot be hashed, and nothing tells them from others that are served under this name"


def hash_name(model: ModelInfo) -> str:
    """What the hash of a model is one of: its files, or what is known of it where it is served."""
    return "SHA-256" if model.served is None else "SHA-256 of address and metadata"


def served_facts(served: Served) -> tuple[tuple[str, str], ...]:
    """Names and values of what is known of a served model; what the server did not tell is left out."""
    version = "" if served.version is None else f", version {served.version}"
    found = (
        ("Served at", served.address),
        ("Served as", f"{served.name}{version}"),
        ("Server", served.server),
        ("Platform", served.platform),
        ("Numbers travel as", {"binary": "binary tensors"}.get(served.wire, served.wire)),
        ("SHA-256 of its metadata", served.metadata_sha256),
        ("Weights", UNSEEN),
    )
    return tuple((name, visible(value)) for name, value in found if value is not None)
