"""What an audit is told from others by: the id of what was asked, and the date."""

from __future__ import annotations

from onnxfim.auditing.context import Ground
from onnxfim.data.samples import hash_arrays
from onnxfim.record.dates import report_date
from onnxfim.record.identity import FileDigest, Identity
from onnxfim.record.report_id import asked_text, report_id
from onnxfim.record.running import CustomLibrary


def identity_of(ground: Ground, libraries: tuple[CustomLibrary, ...]) -> Identity:
    """The identity of an audit that ends now.

    Raises:
        SettingsError: SOURCE_DATE_EPOCH is no date.
    """
    file, samples = ground.subject.file, ground.samples
    held = {name: hash_arrays(values) for name, values in samples.held.items()}
    own = () if file is None or file.held_hash is None else (file.held_hash,)
    asked = asked_text(
        ground.subject.info.sha256,
        samples.sha256,
        ground.settings,
        prepared=samples.prepared,
        held=" ".join((*own, *(f"{name} {held[name]}" for name in sorted(held)))) or None,
        libraries=[library.sha256 for library in libraries],
    )
    files = () if file is None else tuple(
        FileDigest("weights" if at else "model", str(path), sha256) for at, (path, sha256) in enumerate(file.digests)
    )  # fmt: skip
    return Identity(report_id(asked), report_date(), asked=asked, files=files)
