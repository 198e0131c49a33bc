"""Models that are named by an address, or by a function that reaches one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from onnxfim.auditing.subject import CallableModel
from onnxfim.graph.load import ModelFile, load_model
from onnxfim.record.settings import Settings
from onnxfim.served.address import names_address
from onnxfim.served.terms import Reach

if TYPE_CHECKING:
    from onnxfim.served.endpoint import Endpoint


def from_url(
    url: str,
    *,
    input: str | None = None,
    output: str | None = None,
    shape: Sequence[str] = (),
    concurrency: int = Reach.concurrency,
    max_qps: float | None = None,
    max_queries: int | None = None,
    timeout: float = Reach.timeout,
    retries: int = Reach.retries,
    ca_file: str | None = None,
) -> CallableModel:
    """A model that a server of KServe v2 answers for (Triton, MLServer, KServe, OpenVINO Model Server), as one to audit.

    A token goes into the variable ``ONNXFIM_SERVED_TOKEN`` of the environment; it is in no report, log or cache.

    Args:
        url: ``http(s)://HOST:PORT/v2/models/NAME``, with ``/versions/VERSION`` where one is meant.
        input, output: Their names, where the model has several.
        shape: ``NAME:[N,SIZE,…]`` of an input whose metadata leave sizes open.
        concurrency: Requests under way at a time.
        max_qps: Requests a second at most.
        max_queries: Requests in all, after which the audit ends with what is measured.
        timeout: Seconds that a request may take.
        retries: How often a request that brought no answer is made again.
        ca_file: PEM file of the authorities that the server's certificate is held against.

    Raises:
        OnnxFimError: there is no such model, or it cannot be audited.

    Examples:
        >>> import onnxfim
        >>> onnxfim.from_url("http://user:secret@localhost:8000/v2/models/digits")
        Traceback (most recent call last):
        ...
        onnxfim.errors.ModelError: http://localhost:8000/v2/models/digits: holds credentials, which lists of processes and histories of shells show, expected none. Put a token into the variable ONNXFIM_SERVED_TOKEN.
    """  # noqa: E501 - the last line is one
    from onnxfim.served.endpoint import endpoint_at  # HTTP comes with it

    reach = Reach(concurrency, max_qps, max_queries, timeout, retries, ca_file)
    return of_endpoint(endpoint_at(url, reach, input_name=input, output_name=output, shapes=shape))


def of_endpoint(endpoint: Endpoint) -> CallableModel:
    """A model that is reached so."""
    return CallableModel(
        endpoint.once, endpoint.input_shape, None, endpoint.served.name, endpoint.dtype.name, endpoint=endpoint
    )  # fmt: skip


def as_model(model: str | Path | ModelFile | CallableModel, settings: Settings) -> ModelFile | CallableModel:
    """What a user calls a model: a path, an address, or what is one already.

    Raises:
        OnnxFimError: there is none.
    """
    if isinstance(model, (CallableModel, ModelFile)):
        return model
    if names_address(model):
        name = settings.inputs[0] if len(settings.inputs) == 1 else None
        return from_url(str(model), input=name, output=settings.output, shape=settings.shape)
    return load_model(model)
