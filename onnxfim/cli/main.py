"""Commands of `onnxfim`. Heavy imports wait until a command runs, so that `--help` answers at once."""

from __future__ import annotations

import sys
from typing import Any

import click

from onnxfim import __version__
from onnxfim.cli.compare_command import compare
from onnxfim.cli.config import FILE, configured, template
from onnxfim.cli.console import Console
from onnxfim.cli.ending import errors_in_one_line
from onnxfim.cli.options import (
    assets_option,
    cache_options,
    data_options,
    gate_options,
    given_options,
    isolation_options,
    option_of,
    output_options,
    run_options,
)
from onnxfim.cli.program import Program
from onnxfim.cli.spelled import OutputFile

_EPILOG = """Exit codes: 0 pass, or measured where no gate was set, 1 a gate or the baseline's comparison failed, 2 could not run,
bad usage, or the provider failed on the way (what was finished is written), 3 nothing could be audited, 4 inconclusive: a gate is
undecided, the audit unsound or its --timeout up (0 with --allow-inconclusive), 130 interrupted, 143 terminated (what was finished
is written, marked partial). All outputs are written before the code is decided; --exit-zero forgives 1 only."""


@click.group(cls=Program, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}, epilog=_EPILOG)
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
@gate_options
@isolation_options
@cache_options
@output_options
@configured
@click.option("-q", "--quiet", is_flag=True, help="Print errors and the last line only.")
@click.option("-v", "--verbose", is_flag=True, help="Print how the model was read, the step chosen and what each stage took.")
@errors_in_one_line
def audit(model: str, outputs: tuple[tuple[str, str], ...], assets: str | None, quiet: bool, verbose: bool, **options: Any) -> None:
    """Measure a model's sensitivity on data, and write a report.

    MODEL is an ONNX file; the data are an .npz file (keys `inputs` and, optionally, `labels`), an .npy file or a folder
    of images, in the model's own units unless --mean, --std or --input-range say otherwise.
    """
    console = Console(quiet, verbose)
    with console.said_where_slow("loading ONNX Runtime"):
        from onnxfim.cli.audit_command import audit_command
        from onnxfim.cli.outputs import DEFAULT, Outputs

    given = given_options(click.get_current_context())
    sys.exit(audit_command(model, Outputs(outputs or DEFAULT, assets), console, given, **options))


@main.command()
@click.argument("model", type=click.Path())
@click.option(
    "-o",
    "--output-file",
    "outputs",
    type=OutputFile(("html", "json")),
    multiple=True,
    metavar="FORMAT=PATH",
    help="Write html=PATH or json=PATH; repeatable.",
)
@assets_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@option_of("input")
@option_of("feed")
@option_of("shape")
@option_of("output")
@option_of("at")
@click.option("-q", "--quiet", is_flag=True, help="Print errors and results only, no table.")
@configured
@errors_in_one_line
def bounds(model: str, outputs: tuple[tuple[str, str], ...], as_json: bool, quiet: bool, **options: Any) -> None:
    """Show a model's architecture class and its spectral bound, from the weights alone; no data needed."""
    console = Console(quiet)
    with console.said_where_slow("loading what reads graphs"):
        from onnxfim.cli.bounds_command import bounds_command

    bounds_command(model, outputs, as_json, console, **options)


main.add_command(compare)


@main.command()
@click.argument("model", type=click.Path())
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@errors_in_one_line
def inspect(model: str, as_json: bool) -> None:
    """Show what an ONNX file takes and gives: inputs, outputs, opset, output kind, normalisation, providers."""
    from onnxfim.cli.inspect_command import inspect_command

    inspect_command(model, as_json, Console())


@main.command()
@click.argument("report", type=click.Path())
@output_options
@configured
@errors_in_one_line
def convert(report: str, outputs: tuple[tuple[str, str], ...], assets: str | None) -> None:
    """Write a saved audit (REPORT, from -o json=…) in other formats, without running the model."""
    from onnxfim.cli.outputs import DEFAULT, Outputs, convert_command

    convert_command(report, Outputs(outputs or DEFAULT, assets))


@main.command()
@click.argument("path", type=click.Path(), default=FILE, required=False)
@click.option("--force", is_flag=True, help="Overwrite a file that is there.")
@errors_in_one_line
def init(path: str, force: bool) -> None:
    """Write a configuration file, onnxfim.toml, with every option of `audit` commented out."""
    from onnxfim.cli.files import write_new

    write_new(path, template(audit), force=force)
    Console().result(f"{path}: written; every key is commented out and has its default.")


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@errors_in_one_line
def doctor(as_json: bool) -> None:
    """Show what onnxfim finds on this machine: ONNX Runtime, the providers that load, cores, memory, extras.

    Where a GPU is here and CUDA does not load, it ends with the one command that mends it.
    """
    from onnxfim.cli.doctor_command import doctor_command

    doctor_command(as_json, Console())


@main.command()
@errors_in_one_line
def schema() -> None:
    """Print the JSON schema of what `audit -o json=…` writes."""
    import json

    from onnxfim.record.schema import audit_schema

    Console().document(json.dumps(audit_schema(), indent=1))


__all__ = ["main"]
