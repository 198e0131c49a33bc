"""A model that was asked at an address: what is known of it, where its file was not seen."""

from __future__ import annotations

from dataclasses import dataclass

from onnxfim.record.limits import closed


@closed
@dataclass(frozen=True)
class Served:
    """Where a model answered, and what was told of it there.

    Its weights were not seen: nothing tells them from others that are served under the same name.

    Attributes:
        address: The URL, without credentials; of a function that was named on the command line ``MODULE:FUNCTION``.
        name: What the model is called there.
        version: The version that was asked for, or the versions that the server names.
        platform: What the server says that runs it.
        server: Name and version of the server.
        metadata_sha256: Of what the server tells of the model, as JSON with its keys in order; of a function that of its source.
        wire: How numbers travelled: as binary tensors, as JSON, or through a function.
    """

    address: str
    name: str
    version: str | None
    platform: str | None
    server: str | None
    metadata_sha256: str
    wire: str
