"""The dossier: a folder for assessors with the page, the record, an ML-BOM, an in-toto statement, and what they show by standards.

`write_dossier` writes it. Its files are text, and made of the finished audit alone: the same audit gives the same bytes.
"""

from __future__ import annotations

import hashlib
import os

from onnxfim.record.audit import Audit
from onnxfim.record.writing_folders import folder_destination, write_folder

#: Names of its files. The sums are written last, and tell a folder that is a dossier.
PAGE, RECORD, BOM, STATEMENT = "report.html", "report.json", "mlbom.cdx.json", "statement.intoto.json"
CONFORMITY, CONFORMITY_TEXT, SUMS = "conformity.html", "conformity.md", "SHA256SUMS"
NAMES = (PAGE, RECORD, BOM, CONFORMITY, CONFORMITY_TEXT, STATEMENT, SUMS)


def write_dossier(audit: Audit, folder: str | os.PathLike[str]) -> None:
    """Write the dossier of ``audit``: all of its files, or none; an older dossier is replaced.

    Args:
        audit: What was measured, and decided where it was.
        folder: Where to: a folder that is not there, an empty one, or an older dossier.

    Raises:
        OutputError: the folder holds other files, or cannot be written.

    Examples:
        >>> import onnxfim
        >>> samples = onnxfim.load_samples("digits.npz", "digits_mlp.onnx", limit=20)
        >>> audit = onnxfim.audit("digits_mlp.onnx", samples, settings=onnxfim.Settings(samples=20, replay=0))
        >>> onnxfim.write_dossier(audit, "dossier")
    """
    check_dossier(folder)
    write_folder(folder, render_dossier(audit), SUMS)


def check_dossier(folder: str | os.PathLike[str]) -> str:
    """Where a dossier would be written, behind all links.

    Raises:
        OutputError: the folder holds other files, or cannot be written.
    """
    return folder_destination(folder, NAMES, SUMS)


def render_dossier(audit: Audit) -> dict[str, str]:
    """The files of the dossier of ``audit``, by name."""
    from onnxfim.report.dossier.conformity import build_conformity_page, render_conformity_html, render_conformity_text
    from onnxfim.report.dossier.in_toto import render_statement
    from onnxfim.report.dossier.ml_bom import render_ml_bom
    from onnxfim.report.html import render_html

    files = {RECORD: audit.to_json(), PAGE: render_html(audit)}
    files[BOM] = render_ml_bom(audit)
    page = build_conformity_page(audit, files)
    files[CONFORMITY], files[CONFORMITY_TEXT] = render_conformity_html(page), render_conformity_text(page)
    files[STATEMENT] = render_statement(audit, files)
    files[SUMS] = "".join(f"{sha256_of(text)}  {name}\n" for name, text in sorted(files.items()))
    return {name: files[name] for name in NAMES}


def sha256_of(text: str) -> str:
    """The SHA-256 of a text as it is written to a file."""
    return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()
