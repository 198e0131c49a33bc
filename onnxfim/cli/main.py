"""Commands of `onnxfim`. Heavy imports wait until a command runs, so that `--help` answers at once."""

from __future__ import annotations

import sys
from functools import partial
from typing import Any

import click

from onnxfim import __version__
from onnxfim.cli.compare_command import compare
from onnxfim.cli.config import FILE, configured, template
from onnxfim.cli.console import Console
from onnxfim.cli.ending import errors_in_one_line
from onnxfim.cli.export_vnnlib import export_vnnlib_command
from onnxfim.cli.fleet import merge_command, plan_command, require_subject
from onnxfim.cli.fleet import shard as measure_shard
from onnxfim.cli.helping import Example
from onnxfim.cli.options import (
    assets_option,
    cache_options,
    data_options,
    fleet_options,
    gate_options,
    given_options,
    identity_options,
    isolation_options,
    option,
    option_of,
    output_options,
    run_options,
    served_options,
)
from onnxfim.cli.program import Program
from onnxfim.cli.spelled import OutputFile

_CODES = (
    ("0", "pass, or measured where no gate was set"),
    ("1", "a gate or the baseline's comparison failed (0 with --exit-zero, which forgives 1 only)"),
    ("2", "could not run, bad usage, or the provider failed on the way (what was finished is written)"),
    ("3", "nothing could be audited"),
    ("4", "inconclusive: a gate is undecided, the audit unsound or its --timeout up (0 with --allow-inconclusive)"),
    ("130", "interrupted; 143 terminated (what was finished is written, marked partial)"),
)


@click.group(
    cls=Program,
    context_settings={"help_option_names": ["-h", "--help"]},
    codes=_CODES,
    examples=(
        Example("Look at the file: what it takes and gives, and whether it can be audited", "onnxfim inspect model.onnx"),
        Example("Measure it on your samples, and write report.html", "onnxfim audit model.onnx --data samples.npz"),
        Example("Which of two models is more robust on the same samples?", "onnxfim compare a.onnx b.onnx --data samples.npz"),
    ),
    pages=("gates.md", "precisions.md", "hardware.md", "terminal.md"),
)
@click.version_option(__version__, prog_name="onnxfim")
def main() -> None:
    """Audit the robustness of an exported ONNX classifier.

    onnxfim runs the file itself on ONNX Runtime and estimates the largest eigenvalue of the input Fisher information
    matrix: how far a small change of the input can move the output distribution, whatever the attack.
    """


@main.command(
    codes=_CODES,
    short_help="Measure a model's sensitivity on data, and write a report.",
    examples=(
        Example("Measure on your samples, and write report.html", "onnxfim audit model.onnx --data samples.npz"),
        Example(
            "A folder of images, scaled as the model was trained on them",
            "onnxfim audit model.onnx --data images/ --resize 256 --crop 224 \\\n"
            "    --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225",
        ),
        Example(
            "A check for CI: fail where one sample in twenty is more sensitive than this",
            "onnxfim audit model.onnx --data samples.npz -o html=report.html \\\n"
            "    -o junit=junit.xml --fail-on 'lambda_max.p95 > 12.5'",
        ),
        Example(
            "What is guaranteed: distances from both sides, and under random noise",
            "onnxfim audit model.onnx --data samples.npz --bracket --noise gaussian:0.1",
        ),
        Example(
            "A model that a server answers for (KServe v2, Triton), asked gently",
            "onnxfim audit http://localhost:8000/v2/models/digits --data samples.npz \\\n    --max-qps 20 --max-queries 2000",
        ),
    ),
    pages=("gates.md", "guarantees.md", "precisions.md", "hardware.md", "served.md", "failures.md"),
)
@click.argument("model", type=click.Path(), required=False)
@partial(data_options, required=False)
@run_options
@served_options
@gate_options
@isolation_options
@cache_options
@fleet_options
@partial(output_options, bare=True)
@identity_options
@configured
@option("-q", "--quiet", is_flag=True, group="output", help="Print errors, the verdict and the files written only.")
@option(
    "-v", "--verbose", is_flag=True, group="output", help="Print how the model was read, the step chosen and what each stage took."
)
@errors_in_one_line
def audit(
    model: str | None, outputs: tuple[tuple[str, str], ...], assets: str | None, suggest_gates: str | None, quiet: bool,
    verbose: bool, **options: Any,
) -> None:  # fmt: skip
    """Measure a model's sensitivity on data, and write a report.

    MODEL is an ONNX file, or the address of a served model, http://HOST:PORT/v2/models/NAME; the data are an .npz file (keys
    `inputs` and, optionally, `labels`), an .npy file, a table (.csv, .parquet), archives (.tar), a folder of images or of a Hugging
    Face data set, or a function of yours, in the model's own units unless --mean, --std or --input-range say otherwise.
    """
    console, context = Console(quiet, verbose), click.get_current_context()
    plan, shard = options.pop("plan"), options.pop("shard")
    if plan is not None or shard is not None:
        sys.exit(measure_shard(plan, shard, model, outputs, console, given_options(context), options))
    require_subject(context, model or options["predict"], options["data"], outputs)
    with console.said_where_slow("loading ONNX Runtime"):
        from onnxfim.cli.audit_command import audit_command
        from onnxfim.cli.outputs import DEFAULT, Outputs

    from onnxfim.cli.reaching import named_model

    given = given_options(context)
    named = (*(outputs or DEFAULT), *([("gates", suggest_gates)] if suggest_gates else []))
    wanted = Outputs(named, assets, options.pop("print_samples"), options.pop("script"))
    sys.exit(audit_command(named_model(model, options), wanted, console, given, **options))


@main.command(
    short_help="What the weights alone allow: class and upper bound.",
    examples=(
        Example("The bound, the class and the layers", "onnxfim bounds model.onnx"),
        Example("The answer alone, and a page", "onnxfim bounds model.onnx -q -o html=bounds.html"),
        Example("A file that leaves its sizes open", "onnxfim bounds model.onnx --shape 'x:[N,3,224,224]'"),
    ),
    pages=("architecture.md",),
)
@click.argument("model", type=click.Path())
@option(
    "-o",
    "--output-file",
    "outputs",
    type=OutputFile(("html", "json")),
    multiple=True,
    metavar="FORMAT=PATH",
    group="output",
    help="Write html=PATH or json=PATH; repeatable.",
)
@assets_option
@option("--json", "as_json", is_flag=True, group="output", help="Print JSON.")
@option_of("input")
@option_of("feed")
@option_of("shape")
@option_of("output")
@option_of("at")
@partial(identity_options, host=False)
@option("-q", "--quiet", is_flag=True, group="output", help="Print errors, the bound and the class only, no table.")
@configured
@errors_in_one_line
def bounds(model: str, outputs: tuple[tuple[str, str], ...], as_json: bool, quiet: bool, **options: Any) -> None:
    """Show a model's spectral bound and its architecture's class, from the weights alone; no data needed."""
    console = Console(quiet)
    with console.said_where_slow("loading what reads graphs"):
        from onnxfim.cli.bounds_command import bounds_command

    bounds_command(model, outputs, as_json, console, **options)


main.add_command(compare)
main.add_command(plan_command)
main.add_command(merge_command)
main.add_command(export_vnnlib_command)


@main.command(
    short_help="What a file takes and gives, and whether it can be audited.",
    examples=(Example("Can it be audited, and how?", "onnxfim inspect model.onnx"),),
)
@click.argument("model", type=click.Path())
@option("--json", "as_json", is_flag=True, group="output", help="Print JSON.")
@errors_in_one_line
def inspect(model: str, as_json: bool) -> None:
    """Show whether and how an ONNX file can be audited, and what it takes and gives: inputs, outputs, opset, output kind,
    normalisation, providers.
    """
    from onnxfim.cli.inspect_command import inspect_command

    inspect_command(model, as_json, Console())


@main.command(
    short_help="Write a saved audit in other formats.",
    examples=(
        Example("A page and a table of a saved audit", "onnxfim convert report.json -o html=report.html -o csv=samples.csv"),
    ),
)
@click.argument("report", type=click.Path())
@output_options
@partial(identity_options, host=False)
@configured
@errors_in_one_line
def convert(
    report: str, outputs: tuple[tuple[str, str], ...], assets: str | None, print_samples: int | None, script: bool, **options: Any
) -> None:
    """Write a saved audit (REPORT, from -o json=…) in other formats, without running the model.

    It keeps its id, date and command; --title, --note and --meta say more of it.
    """
    from onnxfim.cli.identifying import told_by
    from onnxfim.cli.outputs import DEFAULT, Outputs, convert_command

    convert_command(report, Outputs(outputs or DEFAULT, assets, print_samples, script), told_by(options))


@main.command(short_help="Write a configuration file with every option.", examples=(Example("Write onnxfim.toml", "onnxfim init"),))
@click.argument("path", type=click.Path(), default=FILE, required=False)
@option("--force", is_flag=True, group="output", help="Overwrite a file that is there.")
@errors_in_one_line
def init(path: str, force: bool) -> None:
    """Write a configuration file, onnxfim.toml, with every option of `audit` commented out."""
    from onnxfim.cli.files import write_new

    write_new(path, template(audit), force=force)
    Console().result(f"{path}: written; every key is commented out and has its default.")


@main.command(
    short_help="Where audits run on this machine, and what mends it.",
    examples=(Example("Does the GPU work?", "onnxfim doctor"),),
    pages=("install.md", "hardware.md"),
)
@option("--json", "as_json", is_flag=True, group="output", help="Print JSON.")
@errors_in_one_line
def doctor(as_json: bool) -> None:
    """Show what onnxfim finds on this machine: ONNX Runtime, the providers that load, cores, memory, extras.

    Where a GPU is here and CUDA does not load, it ends with the one command that mends it.
    """
    from onnxfim.cli.doctor_command import doctor_command

    doctor_command(as_json, Console())


@main.command(
    short_help="The JSON Schema of a saved audit.",
    examples=(Example("Keep it beside what reads audits", "onnxfim schema > audit.schema.json"),),
    pages=("stability.md",),
)
@errors_in_one_line
def schema() -> None:
    """Print the JSON schema of what `audit -o json=…` writes."""
    import json

    from onnxfim.record.schema import audit_schema

    Console().document(json.dumps(audit_schema(), indent=1))


@main.command(
    short_help="A script that makes a shell complete onnxfim.",
    examples=(
        Example("For bash, now and from the next login on", 'eval "$(onnxfim completion bash)"'),
        Example("For zsh, in ~/.zshrc", 'eval "$(onnxfim completion zsh)"'),
        Example("For fish", "onnxfim completion fish > ~/.config/fish/completions/onnxfim.fish"),
    ),
    pages=("terminal.md",),
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@errors_in_one_line
def completion(shell: str) -> None:
    """Print a script that makes SHELL complete commands, options, formats, providers, gates and file names."""
    from onnxfim.cli.completing import script

    Console().document(script(main, shell))


@main.command(
    short_help="Write the manual pages.",
    examples=(
        Example("Where man finds them", "onnxfim man ~/.local/share/man/man1 && man onnxfim-audit"),
        Example("Read one without installing it", "onnxfim man pages && man pages/onnxfim-audit.1"),
    ),
    pages=("terminal.md",),
)
@click.argument("folder", type=click.Path(file_okay=False))
@errors_in_one_line
def man(folder: str) -> None:
    """Write the manual pages, one for onnxfim and one for each command, into FOLDER; those of their names are replaced."""
    from onnxfim.cli.man_pages import write_pages

    written = write_pages(main, folder)
    Console().result(f"{folder}: {len(written)} manual pages written: {', '.join(written)}.")


__all__ = ["main"]
