"""Opens ONNX Runtime sessions with fixed settings, runs them, and turns their errors into ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from onnxfim.errors import ProviderError
from onnxfim.runtime.failures import model_error, run_error
from onnxfim.runtime.hardware import ANY, Hardware
from onnxfim.runtime.provider_options import provider_chain, ran_with, start
from onnxfim.runtime.providers import (
    _CPU,
    ProviderReport,
    _captured_stderr,
    _load_failure,
)

Array: TypeAlias = np.ndarray[Any, Any]


def open_session(
    model: Path | bytes,
    hardware: Hardware = ANY,
    *,
    threads: int | None = None,
    base_dir: Path | None = None,
) -> tuple[Any, ProviderReport]:
    """An ``onnxruntime.InferenceSession`` and the report on its provider.

    Args:
        model: File to run as it is, or serialised bytes of a copy.
        hardware: Where it is to run.
        threads: Threads inside an operator; None for ONNX Runtime's default. One thread also stops spinning.
        base_dir: Folder of the external data of a model given as bytes.

    Raises:
        ModelError: the runtime does not take the model.
        ProviderError: an unknown provider, or a required one not obtained.
    """
    chain = provider_chain(hardware)
    source = str(model) if isinstance(model, Path) else model
    with _captured_stderr() as said:
        try:
            session, failed = start(source, lambda: _session_options(threads, base_dir), chain)
        except ProviderError:
            raise
        except Exception as error:
            raise model_error(error, model) from error
    registered = tuple(session.get_providers())
    obtained = registered[0] if registered else _CPU
    names, named = hardware.names, hardware.named
    reason = None
    if names[0] != obtained:
        reason = chain.missing.get(names[0]) or failed.get(names[0]) or _load_failure(names[0], said)
    report = ProviderReport(
        tuple(hardware.providers), obtained, registered, reason, explicit=bool(named) and named[0] != obtained,
        options=ran_with(chain, session), plugin=chain.plugin_of(obtained), tf32_doubt=chain.tf32_doubt,
    )  # fmt: skip
    if hardware.require and named and obtained not in named:
        raise ProviderError(
            f"provider {named[0]} was required and not obtained: {reason}. Install what it needs, or drop the requirement."
        )
    return session, report


def _session_options(threads: int | None, base_dir: Path | None) -> Any:
    """Fresh ``onnxruntime.SessionOptions``."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # errors are raised, and then told in one line
    if base_dir is not None:
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(base_dir))
    if threads is not None:
        options.intra_op_num_threads = threads
        if threads == 1:
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def run(session: Any, outputs: Sequence[str], feeds: Mapping[str, Array]) -> list[Array]:
    """One call of the session; runtime errors become `RowsFailed`, a failed allocation `OutOfMemory`."""
    try:
        return list(session.run(list(outputs), dict(feeds)))
    except Exception as error:
        raise run_error(error) from error
