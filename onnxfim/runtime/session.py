"""Opens ONNX Runtime sessions with fixed settings, runs them, and turns their errors into ours."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from onnxfim.errors import ModelError, ProviderError
from onnxfim.graph.referring import whole
from onnxfim.runtime.failures import explained, model_error, plain, run_error
from onnxfim.runtime.hardware import ANY, Hardware
from onnxfim.runtime.heap import weights_apart
from onnxfim.runtime.installation import import_runtime
from onnxfim.runtime.placement import RECORD, placement
from onnxfim.runtime.provider_options import Chain, added, provider_chain, ran_with, refused_option
from onnxfim.runtime.providers import (
    _CUDA,
    CPU,
    ProviderReport,
    _captured_stderr,
    _load_failure,
)
from onnxfim.runtime.shared_cores import limited_cores
from onnxfim.runtime.stopping import breakable, broken_off
from onnxfim.runtime.watching import try_rows, watched

if TYPE_CHECKING:
    import onnx

Array: TypeAlias = np.ndarray[Any, Any]

_FOLDS = ("ConstantFolding",)  # products with a turned weight are then fused, and read it as it is
#: Nodes and outputs of a graph beyond which it runs as it is written: ONNX Runtime rearranges 12,000 nodes in 18 s, and 8,000 that
#: are all outputs in 100 s, by steps that take the square of their number.
MOST_NODES, MOST_OUTPUTS = 8000, 1000
#: Nodes beyond which the runtime does not plan which value may take another's memory: where many values wait for a backward sweep,
#: it looks through all of them for each, 6 s for 5,000 nodes and 200 s for 25,000. Calls take as long without the plan.
MOST_PLANNED = 2500
#: For how long a thread without work spins before it sleeps: between two nodes of a call there is work sooner. The runtime's own is
#: some 50 ms, after every call and for every session, in which a core is kept from others. Versions before 1.26 keep to it.
SPIN_MICROSECONDS = 1000
_LONGEST = 300  # of what the runtime says of a provider that it leaves out
_FELL_BACK = "EP Error "  # what the runtime's wrapper prints where it goes on with other providers


def slow_to_rearrange(graph: onnx.GraphProto) -> bool:
    """Whether ONNX Runtime takes longer to rearrange this graph than a run of it can gain."""
    return len(graph.node) > MOST_NODES or len(graph.output) > MOST_OUTPUTS


def slow_to_plan(graph: onnx.GraphProto) -> bool:
    """Whether ONNX Runtime takes longer to plan this graph's memory than calls can gain."""
    return len(graph.node) > MOST_PLANNED


def open_session(
    model: Path | bytes,
    hardware: Hardware = ANY,
    *,
    threads: int | None = None,
    base_dir: Path | None = None,
    lean: bool = False,
    mapped: bool = False,
    plain: bool = False,
    packed: bool = True,
    apart: bool = False,
    planned: bool = True,
) -> tuple[Any, ProviderReport]:
    """An ``onnxruntime.InferenceSession`` and the report on its provider.

    Args:
        model: File to run as it is, or serialised bytes of a copy.
        hardware: Where it is to run.
        threads: Threads inside an operator; None for as many as there are cores for this process: ONNX Runtime's own default is one
            for each core of the machine, whatever a container or a batch system leaves of them. One thread also stops spinning.
        base_dir: Folder of the external data of a model given as bytes.
        lean: Take memory call by call. A plan of it, made at the first call of each shape, takes as much again beside what that
            call took, and derivative graphs gain no time by it.
        mapped: Leave the weights in their files on the CPU, as they are: neither packed for its kernels nor turned, which each take
            them into memory once more.
        plain: Run the graph as it is written: for a single call, or where the runtime would take long to rearrange it.
        packed: Let the runtime pack weights for its kernels, once for every node that reads one; not worth it for a single call.
        planned: Let the runtime plan which values take the memory of others: not where that takes long.
        apart: Give large weights pages of their own, so that what opening takes beside them goes back to the system.

    Raises:
        ModelError: the runtime does not take the model.
        ProviderError: an unknown provider, or a required one not obtained.
    """
    chain = provider_chain(hardware)
    libraries = hardware.custom_operators
    mapped = mapped and chain.links[0].provider == CPU

    def options() -> Any:
        return _session_options(
            threads, base_dir, libraries, lean, packed and not mapped, spinning=hardware.spinning, plain=plain, planned=planned
        )

    try:
        with weights_apart() if apart else nullcontext():
            session, said, failed = _opened(model, chain, options, _FOLDS if mapped else ())
    except ModelError:  # runtimes before 1.22 or so, and some providers, do not take a copy whose weights are in files
        complete = whole(model, base_dir) if isinstance(model, bytes) and base_dir is not None else None
        if complete is None:
            raise
        session, said, failed = _opened(complete, chain, options)
    registered = tuple(session.get_providers())
    names, named = hardware.names, hardware.named
    where = placement(session, model, named)
    obtained = (where.first if where is not None else None) or (registered[0] if registered else CPU)
    missed, reason, remedy = bool(named) and named[0] != obtained, None, None
    if names[0] in registered and names[0] != obtained:
        reason = "it loaded, but was given no node that computes: " + (where.told() if where else "")
    elif names[0] != obtained:
        reason = chain.missing.get(names[0]) or explained(failed or _load_failure(names[0], said))
        if names[0] == _CUDA:
            from onnxfim.runtime.cuda import why_not_cuda  # no other run needs it

            reason, remedy = why_not_cuda(reason, named=missed)
    report = ProviderReport(
        tuple(hardware.providers), obtained, registered, reason, explicit=missed, options=ran_with(chain, session),
        plugin=chain.plugin_of(obtained), tf32_doubt=chain.tf32_doubt, remedy=remedy, placement=where,
    )  # fmt: skip
    if hardware.require and named:
        _require(named, report)
    return session, report


def _require(named: tuple[str, ...], report: ProviderReport) -> None:
    """Raise ProviderError where the model, or a part of it that computes, is not on a provider that was named."""
    if report.obtained not in named:
        loaded = named[0] in report.registered
        mends = "Use operators, types and an opset that it takes" if loaded else "Install what it needs"
        told = f"provider {named[0]} was required and not obtained: {report.reason}"
        raise ProviderError(f"{told}. {report.remedy or f'{mends}, or drop the requirement.'}")
    if report.placement is not None and report.placement.elsewhere:
        told = f"provider {named[0]} was required, but {report.placement.told(report.placement.elsewhere)}"
        raise ProviderError(
            f"{told}. Use operators, types and an opset that it takes, name the other provider too (--provider twice), or drop the "
            "requirement."
        )


def _opened(
    model: Path | bytes, chain: Chain, session_options: Callable[[], Any], without: Sequence[str] = ()
) -> tuple[Any, list[str], str | None]:
    """A session on the chain of providers, what was said meanwhile, and why the first was left out where it was.

    A provider that cannot be made is left out, and the session is opened on those after it with their own options. ONNX Runtime's
    own wrapper would do that too, but without any options, and would do it again in the middle of a run. Changes of the graph that
    ``without`` names are not made.

    Raises:
        ModelError: no provider takes the model.
        ProviderError: a provider does not take an option that a person gave.
    """
    onnxruntime = import_runtime()
    source = str(model) if isinstance(model, Path) else model
    heard: list[str] = []
    first: str | None = None
    named = {"disabled_optimizers": list(without)} if without else {}
    for start in range(len(chain.links)):
        links = chain.links[start:]
        options = session_options()
        with _captured_stderr() as said:
            try:
                with watched("opening"):
                    session = onnxruntime.InferenceSession(
                        source, options, providers=added(options, links), enable_fallback=0, **named
                    )
            except Exception as error:
                refused_option(links, error)
                if len(links) == 1:
                    raise model_error(error, model) from error
                text = plain(str(error))[:_LONGEST]
                first = first or (text if links[0].plugin is None else f"its plug-in failed: {text}")
                continue
        heard += said
        if len(links) > 1 and any(_FELL_BACK in line for line in said):  # before 1.21 or so: the wrapper's own way
            first = first or plain(next(line for line in said if _FELL_BACK in line))[:_LONGEST]
            continue
        session.disable_fallback()
        return session, heard, first
    raise AssertionError("the last of a chain is opened, or is an error")  # pragma: no cover


def _session_options(
    threads: int | None, base_dir: Path | None, libraries: Sequence[str] = (), lean: bool = False, packed: bool = True, *,
    spinning: bool = True, plain: bool = False, planned: bool = True,
) -> Any:  # fmt: skip
    """Fresh ``onnxruntime.SessionOptions``, with the custom operators of these libraries."""
    onnxruntime = import_runtime()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # errors are raised, and then told in one line
    options.add_session_config_entry(RECORD, "1")
    options.enable_mem_pattern = not lean
    options.enable_mem_reuse = planned
    if plain:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    if not packed:
        options.add_session_config_entry("session.disable_prepacking", "1")
    if base_dir is not None:
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(base_dir))
    threads = limited_cores() if threads is None else threads
    if threads is not None:
        options.intra_op_num_threads = threads
    if threads == 1 or not spinning:
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    else:
        options.add_session_config_entry("session.intra_op.spin_duration_us", str(SPIN_MICROSECONDS))
    for library in libraries:
        _register(options, library)
    return options


def _register(options: Any, library: str) -> None:
    """Load a library of custom operators.

    Raises:
        ModelError: it is not there, or is no such library.
    """
    mends = "Give a shared library that exports RegisterCustomOps, built for this machine and this ONNX Runtime."
    if not os.path.isfile(library):  # also where the system takes no such name
        raise ModelError(f"{library}: no such file, expected a library of custom operators. Check the path.")
    try:
        with watched("opening"):
            options.register_custom_ops_library(str(Path(library).resolve()))
    except Exception as error:
        raise ModelError(
            f"{library}: cannot be loaded as a library of custom operators ({plain(str(error))[:_LONGEST]}). {mends}"
        ) from error


def run(session: Any, outputs: Sequence[str], feeds: Mapping[str, Array], along: Mapping[str, int] | None = None) -> list[Array]:
    """One call of the session; its errors become those of `failures.run_error`. ``along`` is as in `watching.try_rows`."""
    try_rows(session, outputs, feeds, along)
    try:
        with watched("call", next((len(a) for a in feeds.values() if np.ndim(a)), 0)):
            return list(session.run(list(outputs), dict(feeds), breakable()))
    except Exception as error:
        raise broken_off(error) or run_error(error, session) from error
