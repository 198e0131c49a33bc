"""What the options say of a model that is no file: its address or its function, and how it is asked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from onnxfim.auditing.subject import CallableModel
from onnxfim.graph.load import ModelFile, load_model
from onnxfim.record.redacting import without_secrets
from onnxfim.record.settings import shape_given
from onnxfim.served.address import names_address
from onnxfim.served.terms import Reach


def named_model(model: str | None, options: Mapping[str, Any]) -> str:
    """What is to be audited, as messages call it.

    Raises:
        click.UsageError: nothing, or two models.
    """
    predict: str | None = options.get("predict")
    if model is not None and predict is not None:
        raise click.UsageError(f"MODEL ({without_secrets(model)}) and --predict name two models. Give one of them.")
    if model is None and predict is None:
        raise click.UsageError("Missing argument 'MODEL'.")
    return predict if model is None or predict is not None else model  # type: ignore[return-value]


def is_asked(model: str, options: Mapping[str, Any]) -> bool:
    """Whether a model is asked over a wire or by a function, and is no file."""
    return options.get("predict") is not None or names_address(model)


def reach_of(options: Mapping[str, Any], *, concurrency: int = Reach.concurrency) -> Reach:
    """How the options want a model asked."""
    return Reach(
        options["concurrency"] or concurrency, options["max_qps"], options["max_queries"], options["request_timeout"],
        options["retries"], options["ca_file"],
    )  # fmt: skip


def read_model(model: str, options: Mapping[str, Any]) -> ModelFile | CallableModel | None:
    """The model that the options name; None for a function, which is made when the shape of the data is known.

    Raises:
        OnnxFimError: there is none.
    """
    if options.get("predict") is not None:
        return None
    if not names_address(model):
        return load_model(model)
    from onnxfim.auditing.served_model import of_endpoint
    from onnxfim.served.endpoint import endpoint_at

    given: str | tuple[str, ...] = options["input"] or ()
    names = (given,) if isinstance(given, str) else given
    if len(names) > 1:
        raise click.UsageError("--input names several inputs, and a served model is audited at one. Name that.")
    name = next(iter(names), None)
    reach = reach_of(options)
    return of_endpoint(endpoint_at(model, reach, input_name=name, output_name=options["output"], shapes=options["shape"]))


def function_model(options: Mapping[str, Any], shape: tuple[int | None, ...]) -> CallableModel:
    """The model that ``--predict`` names, for samples of a shape.

    Raises:
        InputError: there is none.
    """
    from onnxfim.auditing.user_function import from_function

    return from_function(options["predict"], shape, reach_of(options, concurrency=1))


def given_sizes(options: Mapping[str, Any]) -> tuple[int | None, ...] | None:
    """The shape of a sample that ``--shape`` says, None where nothing does: of a function, which takes whatever the data have."""
    found = [shape for text in options["shape"] if (shape := shape_given(text)) is not None]
    return found[0][1][1:] if found else None
