"""The commands of an audit by many machines: `plan` and `merge`, and what `audit --plan` takes."""

from __future__ import annotations

import sys
from collections.abc import Collection, Sequence
from functools import partial
from typing import Any, NoReturn

import click

from onnxfim.cli.config import configured
from onnxfim.cli.console import Console
from onnxfim.cli.ending import errors_in_one_line
from onnxfim.cli.helping import Example, ExplainedCommand
from onnxfim.cli.options import (
    cache_options,
    data_options,
    gate_options,
    given_options,
    identity_options,
    isolation_options,
    option,
    option_of,
    output_options,
    run_options,
)
from onnxfim.cli.spelled import OutputFile

_PAGES = ("scale.md", "howto/many-machines.md")
_MERGE_CODES = (
    ("0", "pass, or measured where no gate was set"),
    ("1", "a gate or the baseline's comparison failed"),
    ("2", "shards of several plans, one that cannot be read, or bad usage"),
    ("3", "shards are missing (they are listed), or nothing could be audited"),
    ("4", "inconclusive, as of `audit`"),
)


@click.command(
    cls=ExplainedCommand,
    short_help="Plan an audit whose samples are measured apart.",
    examples=(
        Example("Plan it once", "onnxfim plan model.onnx --data samples.npz -o plan.json"),
        Example("Measure a shard of eight, anywhere", "onnxfim audit --plan plan.json --shard 3/8"),
        Example("Make one audit of all", "onnxfim merge shard-*.json -o html=report.html"),
    ),
    pages=_PAGES,
)
@click.argument("model", type=click.Path())
@data_options
@run_options
@option(
    "--baseline",
    metavar="PATH",
    group="gates",
    example="baseline.json",
    help="Plan at this saved audit's step, scheme, method, seed and samples; merge compares.",
)
@isolation_options
@cache_options
@option(
    "-o",
    "--output-file",
    "target",
    default="plan.json",
    show_default=True,
    metavar="PATH",
    group="output",
    help="Where the plan goes; `-` is stdout.",
)
@partial(identity_options, host=True)
@configured
@option("-q", "--quiet", is_flag=True, group="output", help="Print errors and the plan's line only.")
@option("-v", "--verbose", is_flag=True, group="output", help="Print what each stage took.")
@errors_in_one_line
def plan_command(model: str, target: str, quiet: bool, verbose: bool, **options: Any) -> None:
    """Measure all that couples the samples of an audit, and write it down: clean outputs, temperature, step, directions.

    Shards of this plan are then measured anywhere, in any order, and `merge` makes the very audit that one process would have made.
    """
    console = Console(quiet, verbose)
    with console.said_where_slow("loading ONNX Runtime"):
        from onnxfim.cli import fleet_commands

    fleet_commands.plan_command(model, target, console, given_options(click.get_current_context()), **options)


plan_command.name = "plan"


@click.command(
    cls=ExplainedCommand,
    short_help="Make one audit of the shards of a plan.",
    codes=_MERGE_CODES,
    examples=(
        Example("A page of all shards, with the plan beside them", "onnxfim merge shard-*.json -o html=report.html"),
        Example("A check for CI", "onnxfim merge shards/ --plan plan.json --fail-on 'lambda_max.p95 > 12.5'"),
        Example("What is there so far", "onnxfim merge shard-*.json --partial"),
    ),
    pages=_PAGES,
)
@click.argument("shards", type=click.Path(), nargs=-1, required=True)
@option(
    "--plan",
    "plan_path",
    metavar="PATH",
    group="fleet",
    example="plan.json",
    help="The plan.  [default: plan.json in the working folder, or beside the shards]",
)
@option(
    "--partial",
    is_flag=True,
    group="fleet",
    help="Make an audit of the shards that are there; samples of others are listed as skipped.",
)
@option_of("custom_op_libraries")
@option_of("provider_libraries")
@option(
    "--model",
    metavar="PATH",
    group="model",
    help="The model, where it is not where the plan says: KL curves and attacks look at it again.",
)
@option("--data", metavar="PATH", group="data", help="The samples, where they are not where the plan says.")
@gate_options
@isolation_options
@cache_options
@output_options
@identity_options
@configured
@option("-q", "--quiet", is_flag=True, group="output", help="Print errors, the verdict and the files written only.")
@option(
    "-v", "--verbose", is_flag=True, group="output", help="Print how the model was read, the step chosen and what each stage took."
)
@errors_in_one_line
def merge_command(
    shards: tuple[str, ...], plan_path: str | None, model: str | None, outputs: tuple[tuple[str, str], ...], assets: str | None,
    suggest_gates: str | None, quiet: bool, verbose: bool, **options: Any,
) -> None:  # fmt: skip
    """Make one audit of SHARDS, files or folders of them, and write its report.

    Statistics, findings and gates are computed anew from all samples: the result is that of one process, times apart.
    """
    console = Console(quiet, verbose)
    with console.said_where_slow("loading what merges"):
        from onnxfim.cli import fleet_commands
        from onnxfim.cli.outputs import DEFAULT, Outputs

    named = (*(outputs or DEFAULT), *([("gates", suggest_gates)] if suggest_gates else []))
    wanted = Outputs(named, assets, options.pop("print_samples"), options.pop("script"))
    sys.exit(fleet_commands.merge_command(shards, plan_path, model, wanted, console, **options))


merge_command.name = "merge"


def shard(
    plan: str | None, shard: str | None, model: str | None, outputs: Sequence[tuple[str, str]], console: Console,
    given: Collection[str], options: dict[str, Any],
) -> int:  # fmt: skip
    """Measure a shard; returns the exit code.

    Raises:
        click.UsageError: one of --plan and --shard is missing, or an option is the plan's.
    """
    if plan is None:
        raise click.UsageError("--shard needs --plan: a file that onnxfim plan wrote.")
    with console.said_where_slow("loading ONNX Runtime"):
        from onnxfim.cli import fleet_commands

    return fleet_commands.shard_command(plan, shard, model, outputs, console, given, **options)


def require_subject(context: click.Context, model: str | None, data: str | None, outputs: Sequence[tuple[str, str]]) -> None:
    """Raise as click does where an audit has no model or no data, or an output has no format; with a plan it needs none of them.

    Raises:
        click.UsageError: which is missing.
    """
    told = {parameter.name: parameter for parameter in context.command.params}
    for name, value in (("model", model), ("data", data)):
        if value is None:
            _missing(context, told[name])
    for kind, path in outputs:
        if not kind:
            known = ", ".join(OutputFile().known)
            raise click.BadParameter(f"{path!r} is not FORMAT=PATH with a format of {known}.", context, told["outputs"])


def _missing(context: click.Context, parameter: click.Parameter) -> NoReturn:
    hint = f"'{parameter.make_metavar(context).strip('[]')}'" if isinstance(parameter, click.Argument) else None
    raise click.MissingParameter(ctx=context, param=parameter, param_hint=hint)
