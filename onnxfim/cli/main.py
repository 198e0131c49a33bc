"""Commands of `onnxfim`. Heavy imports wait until a command runs, so that `--help` answers at once."""

from __future__ import annotations

import sys
from typing import Any

import click

from onnxfim import __version__
from onnxfim.cli.console import Console, errors_in_one_line
from onnxfim.cli.options import OUTPUT, data_options, run_options

_EPILOG = """Exit codes: 0 done, 2 could not run or bad usage, 3 nothing could be audited, 130 interrupted (what was finished
is written, marked partial)."""


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}, epilog=_EPILOG)
@click.version_option(__version__, prog_name="onnxfim")
def main() -> None:
    """Audit the robustness of an exported ONNX classifier.

    onnxfim runs the file itself on ONNX Runtime and estimates the largest eigenvalue of the input Fisher information
    matrix: how far a small change of the input can move the output distribution, whatever the attack.
    """


@main.command(epilog=_EPILOG)
@click.argument("model", type=click.Path())
@data_options
@run_options
@click.option(
    "-o",
    "--output-file",
    "outputs",
    type=OUTPUT,
    multiple=True,
    metavar="FORMAT=PATH",
    help="Write html=PATH or json=PATH; repeatable.  [default: html=report.html]",
)
@click.option("-q", "--quiet", is_flag=True, help="Print errors and the last line only.")
@click.option("-v", "--verbose", is_flag=True, help="Print how the model was read and the step chosen.")
@errors_in_one_line
def audit(model: str, outputs: tuple[tuple[str, str], ...], quiet: bool, verbose: bool, **options: Any) -> None:  # fmt: skip
    """Measure a model's sensitivity on data, and write a report.

    MODEL is an ONNX file; the data are an .npz file (keys `inputs` and, optionally, `labels`), an .npy file or a folder
    of images, in the model's own units unless --mean, --std or --input-range say otherwise.
    """
    from onnxfim.cli.run import audit_command

    sys.exit(audit_command(model, outputs or (("html", "report.html"),), Console(quiet, verbose), **options))


@main.command()
@click.argument("model", type=click.Path())
@click.option(
    "-o",
    "--output-file",
    "outputs",
    type=OUTPUT,
    multiple=True,
    metavar="FORMAT=PATH",
    help="Write html=PATH or json=PATH; repeatable.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--input", "input_name", metavar="NAME", help="Input, where the model has several.")
@click.option("--output", "output_name", metavar="NAME", help="Output, where the model has several.")
@click.option("-q", "--quiet", is_flag=True, help="Print errors and results only, no table.")
@errors_in_one_line
def bounds(model: str, outputs: tuple[tuple[str, str], ...], as_json: bool, quiet: bool, **options: Any) -> None:
    """Show a model's architecture class and its spectral bound, from the weights alone; no data needed."""
    from onnxfim.cli.bounds import bounds_command

    bounds_command(model, outputs, as_json, Console(quiet), None, **options)


@main.command()
@click.argument("model", type=click.Path())
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@errors_in_one_line
def inspect(model: str, as_json: bool) -> None:
    """Show what an ONNX file takes and gives: inputs, outputs, opset, output kind, normalisation, providers."""
    from onnxfim.cli.inspect import inspect_command

    inspect_command(model, as_json)


__all__ = ["main"]
