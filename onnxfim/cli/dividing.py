"""`audit --devices`: the same audit, its samples divided among devices of this machine."""

from __future__ import annotations

import os
from functools import partial
from typing import Any

from onnxfim.auditing.common_step import Candidate
from onnxfim.cli.cache_folder import cache_folder
from onnxfim.cli.console import Console
from onnxfim.cli.isolating import Runs
from onnxfim.errors import SettingsError
from onnxfim.fleet.devices import devices_of
from onnxfim.fleet.on_devices import audited_on
from onnxfim.record.audit import Audit
from onnxfim.runtime.nvidia import look_for_gpu
from onnxfim.runtime.shared_cores import usable_cores


def divided_audit(candidate: Candidate, options: dict[str, Any], how: Runs, console: Console) -> Audit:
    """The audit of a model on the devices that the options name.

    Raises:
        SettingsError: they are no devices, or a process for each was refused.
        OnnxFimError: as `audited_on`.
    """
    if options["isolate"] == "off":
        raise SettingsError("--devices: has a process for each device, and --isolate off refuses one. Drop one of the two.")
    devices = devices_of(options["devices"], candidate.settings, cores=_cores(), gpu=look_for_gpu().here, environ=os.environ)
    show = partial(console.progress, None, apart=True)
    found = audited_on(devices, candidate, how.isolation, cache_dir=cache_folder(options), show=show, level=how.level)
    for note in found.notes:
        console.say(f"warning: {note}", colour="yellow")
    return found.audit


def _cores() -> tuple[int, ...]:
    """The cores that this process may run on; none where it cannot keep others to some of them, or a quota leaves fewer."""
    if not hasattr(os, "sched_setaffinity"):  # macOS, Windows
        return ()
    cores = tuple(sorted(os.sched_getaffinity(0)))
    return cores[: usable_cores()]
