"""An audit in a Hugging Face model card, offline. huggingface_hub's only home."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from onnxfim.errors import OutputError, in_one_line
from onnxfim.record.audit import Audit
from onnxfim.record.writing import write_text
from onnxfim.report.model_card import model_index, render_model_card, render_section

_SECTION = re.compile(r"^## Robustness\n.*?(?=^#{1,2} |\Z)", re.MULTILINE | re.DOTALL)


def update_card(path: str | os.PathLike[str], audit: Audit, **about: Any) -> None:
    """Put an audit into a model card, a ``README.md`` file: into its ``model-index``, and into its section on robustness.

    What else the card says stays; an earlier audit of the same data is replaced. A card that is not there is made.

    Args:
        path: The card.
        audit: What was measured.
        about: ``name``, ``task``, ``dataset``, ``dataset_name``, ``split``, as of `model_index`.

    Raises:
        OutputError: huggingface_hub is not installed, or the card cannot be read or written.
    """
    try:
        from huggingface_hub import ModelCard
        from huggingface_hub.repocard_data import model_index_to_eval_results
    except ImportError as error:
        raise OutputError(
            "update_card: huggingface_hub is not installed, expected to read the card with. Run: pip install "
            "'onnxfim[huggingface]'."
        ) from error
    try:
        card = ModelCard(Path(path).read_text("utf-8") if Path(path).exists() else "---\n{}\n---\n")
        name, new = model_index_to_eval_results(model_index(audit, **about))
        places = {(r.dataset_type, r.dataset_split, r.task_type, r.task_name) for r in new}
        kept = [
            r for r in card.data.eval_results or () if (r.dataset_type, r.dataset_split, r.task_type, r.task_name) not in places
        ]
        card.data.model_name = card.data.model_name or about.get("name") or name
        card.data.eval_results = [*kept, *new]
        section = render_section(audit)
        text = str(card.text).rstrip("\n")
        found = _SECTION.search(text + "\n")
        card.text = f"{text[: found.start()]}{section}\n{text[found.end() :]}" if found else f"{text}\n\n{section}"
        written = str(card)
    except Exception as error:  # a card is any YAML, and its reader raises what it stumbles over
        raise OutputError(
            f"{path}: is no model card that can be read ({in_one_line(error)[:200]}), expected YAML between --- lines. Mend it."
        ) from error
    write_text(path, written if written.endswith("\n") else f"{written}\n")


__all__ = ["model_index", "render_model_card", "update_card"]
