"""Groups of options shared by commands; those of settings are made from what the settings declare."""

from __future__ import annotations

import typing
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, TypeAlias, TypeVar

import click
from click.shell_completion import CompletionItem

from onnxfim.cli import completing
from onnxfim.cli.spelled import AutoFloat, AutoInt, Duration, Floats, NamedText, Names, OutputFile, Percent, Rise, Size, TwoNumbers
from onnxfim.record.declared import Setting
from onnxfim.record.settings import SETTINGS

F = TypeVar("F", bound=Callable[..., Any])
Decorator: TypeAlias = Callable[[Any], Any]


class ExampleOption(click.Option):
    """An option with an ``example`` for the configuration file, None where its default is one, and the ``group`` of its heading."""

    def __init__(self, *args: Any, example: object = None, group: str = "", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.example, self.group = example, group

    def make_metavar(self, *args: Any, **kwargs: Any) -> str:
        """What the value is called: N for a whole number, R for another; else as click says."""
        if self.metavar is None and isinstance(self.type, (click.types.IntParamType, click.types.FloatParamType)):
            return "N" if isinstance(self.type, click.types.IntParamType) else "R"
        return super().make_metavar(*args, **kwargs)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """What a shell offers: what the option or its type says, else files or folders where the value is a path."""
        if self._custom_shell_complete is None and isinstance(self.type, click.types.StringParamType):
            if (metavar := self.metavar or "").startswith(("PATH", "DIR")):
                words = [CompletionItem(word) for word in metavar.split("|")[1:] if word.startswith(incomplete) and incomplete]
                return words or [CompletionItem(incomplete, type="dir" if metavar.startswith("DIR") else "file")]
            if "=PATH" in metavar:
                name, equals, path = incomplete.partition("=")
                return completing.files(path, before=f"{name}=") if equals else []
        return super().shell_complete(ctx, incomplete)


option = partial(click.option, cls=ExampleOption)


def _apply(options: list[Decorator], function: F, group: str) -> F:
    """The function with the options, which `--help` lists in their order; those without a group of their own stand in ``group``."""
    before = len(getattr(function, "__click_params__", ()))
    for decorate in reversed(options):
        function = decorate(function)
    for made in getattr(function, "__click_params__", ())[before:]:
        made.group = getattr(made, "group", "") or group
    return function


def _gates(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    return completing.gates(incomplete)


def _providers(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    return completing.providers(incomplete)


#: What a shell offers for settings whose type does not tell it.
_OFFERED = {"providers": _providers}
_LONGEST = 40  # letters of choices that stand in the place of a value's name


def setting_option(setting: Setting) -> Decorator:
    """The option of a setting; its value goes into `Settings` as it is."""
    facts = setting.facts
    given: dict[str, Any] = {"example": facts.example, "metavar": facts.metavar or None, "help": facts.help, "group": facts.group}
    if setting.name in _OFFERED:
        given["shell_complete"] = _OFFERED[setting.name]
    name = f"--{setting.option}"
    if setting.kind is bool:
        name += f"/--no-{setting.option}" if setting.default else ""
        given |= {"is_flag": True, "default": setting.default, "show_default": setting.default}
    elif facts.auto:
        given |= {"type": AutoInt() if setting.kind is int else AutoFloat(), "default": "auto", "show_default": True}
    else:
        repeats = tuple[str, ...] in (setting.kind, *typing.get_args(setting.kind))
        given |= {
            "type": _type(setting),
            "multiple": repeats,
            "default": setting.default,
            "show_default": setting.default is not None,
        }
        notes = (
            "; repeatable." if repeats else ".",
            f"  [default: {facts.unset}]" if setting.default is None and facts.unset else "",
        )
        given["help"] = facts.help.removesuffix(".") + "".join(notes)
        if setting.choices and not facts.metavar and len("|".join(setting.choices)) > _LONGEST:
            given["metavar"] = setting.option.rpartition("-")[2].upper() if setting.option else None
            given["help"] += f" One of {', '.join(setting.choices)}."
    return option(name, setting.name, **given)


def setting_value(setting: Setting, value: Any) -> Any:
    """An option's value as its setting holds it: of one that is repeatable or left out, a text, several, or None."""
    one_or_many = setting.optional and tuple[str, ...] in typing.get_args(setting.kind)
    if not one_or_many or not isinstance(value, tuple):
        return value
    return None if not value else value[0] if len(value) == 1 else value


def _type(setting: Setting) -> Any:
    """The click type that reads a setting's value; None for text."""
    facts, kind = setting.facts, setting.kind
    if setting.choices:
        return click.Choice(setting.choices)
    if facts.share:
        return Percent()
    if kind is int:
        least, most = (None if limit is None else int(limit) for limit in (facts.least, facts.most))
        return click.INT if least is most is None else click.IntRange(least, most)
    if kind is float:
        return click.FLOAT if facts.least is facts.most is None else click.FloatRange(facts.least, facts.most)
    return {tuple[float, ...]: Floats(), tuple[float, float]: TwoNumbers()}.get(kind)


def _settings_of(*groups: Literal["data", "model", "measure", "run"]) -> list[Decorator]:
    """The options of all settings of the groups."""
    return [setting_option(s) for s in SETTINGS if s.option is not None and s.facts.group in groups]


def option_of(name: str) -> Decorator:
    """The option of one setting."""
    return setting_option(next(s for s in SETTINGS if s.name == name))


assets_option = option(
    "--html-assets", "assets", group="output", metavar="DIR", example="report_files", help="Write the page's style and pictures into this folder beside it, for hosts that block inline styles.",
)  # fmt: skip


script_option = option(
    "--script/--no-script", default=True, show_default=True, group="output", help="Give the page its script, which sorts, filters and searches tables; it is whole without.",
)  # fmt: skip


def output_options(function: F, *, bare: bool = False) -> F:
    """Options that say what to write; ``bare`` is for a command that may write something that is no report."""
    return _apply(
        [
            option("-o", "--output-file", "outputs", type=OutputFile(bare=bare), multiple=True, metavar="FORMAT=PATH", example=["html=report.html", "json=report.json"],
                   help="Write html, json, csv, junit, sarif, markdown, comment, model-card or gates; dossier=DIR writes a folder for assessors; `-` is stdout; repeatable.  [default: html=report.html]"),
            assets_option,
            option("--print-samples", type=click.IntRange(min=1), metavar="N", example=30,
                   help="Samples that the page's table has on paper; the screen has more.  [default: 12]"),
            script_option,
        ],
        function,
        "output",
    )  # fmt: skip


def given_options(context: click.Context) -> frozenset[str]:
    """Names of the options that were given, and not left at their defaults."""
    left = (click.core.ParameterSource.DEFAULT, click.core.ParameterSource.DEFAULT_MAP)
    return frozenset(name for name in context.params if context.get_parameter_source(name) not in left)


def gate_options(function: F) -> F:
    """Options that make an audit a check."""
    return _apply(
        [
            option("--fail-on", multiple=True, metavar="GATE", shell_complete=_gates, example=["lambda_max.p95 > 12.5", "clean_accuracy < 90%"],
                   help="Fail where this holds, such as 'lambda_max.p95 > 12.5', 'clean_accuracy < 90%' or findings.error; repeatable."),
            option("--suggest-gates", metavar="PATH", example="gates.toml",
                   help="Write gates with the margins that this audit's intervals allow, as a configuration file (as -o gates=PATH does)."),
            option("--baseline", metavar="PATH", example="baseline.json", help="Compare with this saved audit (JSON), at its step, scheme, method, seed and samples."),
            option("--baseline-optional", is_flag=True,
                   help="Where the file of --baseline is not there (the first run), compare with none, and say so in every report; one that is there is read or refused."),
            option("--max-regression", type=Rise(), metavar="PERCENT", example="10%",
                   help="With --baseline: fail where lambda_max rose by more than this, on average or of a usual sample.  [default: 10%]"),
            option("--regression-over", type=click.Choice(["samples", "population"]), default="samples", show_default=True,
                   help="Decide on the rise over these very samples, or over such samples in general (needs many more)."),
            option("--allow-inconclusive", is_flag=True,
                   help="Exit with 0 instead of 4 where the verdict is inconclusive: the audit is unsound, or a gate undecided."),
            option("--fail-on-inconclusive", is_flag=True, hidden=True, help="Has no effect: it is the default, which --allow-inconclusive undoes."),
            option("--exit-zero", is_flag=True, help="Exit with 0 instead of 1 where a gate failed."),
        ],
        function,
        "gates",
    )  # fmt: skip


def identity_options(function: F, *, host: bool = True) -> F:
    """Options that say what a report calls itself; ``host`` is for commands that measure."""
    on_host = [option("--host", is_flag=True, help="Put this machine's name into the report.")] if host else []
    return _apply(
        [
            option("--title", metavar="TEXT", example="Release 1.4, vision model", help="What the report calls itself."),
            option("--note", metavar="TEXT", example="Before the retraining of June.", help="What is to be said of it, in the report."),
            option("--meta", type=NamedText(), multiple=True, metavar="KEY=VALUE", example=["ticket=V-12"], help="Another fact for the report, such as owner=vision; repeatable."),
            *on_host,
            option("--no-date", is_flag=True, help="Leave the date out of the report; SOURCE_DATE_EPOCH sets another."),
        ],
        function, "output",
    )  # fmt: skip


def data_options(function: F, *, required: bool = True) -> F:
    """Options that say what the samples are."""
    return _apply(
        [
            option("--data", required=required, metavar="PATH|FILE.py:FUNCTION|random", example="samples.npz",
                   help="Samples: .npz, .npy, .csv, .parquet, .tar shards (name-{000..012}.tar), a folder of images or of a Hugging Face data set, an address such as s3://bucket/x.npz, `random`; or a function of a "
                   "Python file of yours, which is run (named on the command line alone)."),
            *_settings_of("data"),
            option("--labels", "labels_path", metavar="PATH", example="labels.npy", help="Labels in an .npy file of their own; of a folder of images in a .csv file.  [default: labels.csv in the folder]"),
            option("--label-column", metavar="NAME", example="label", help="Column of a table that holds the labels, by name or place (0, -1).  [default: one called label]"),
            option("--feature-columns", type=Names(), metavar="NAMES", example=["age", "height"], help="Columns of a table that are the model's input, in its order.  [default: all others]"),
            option("--class-names", metavar="NAMES|PATH", example=["cat", "dog"], help="Names of the classes in the order of the model's outputs, or a file with one a line; labels may be such names."),
            option("--feature-names", metavar="FILE|A,B,…", example="features.txt", help="Names of the numbers of a sample: a text file with one a line, or the names with commas between them."),
            option("--inputs-key", default="inputs", show_default=True, help="Key of the samples in an .npz file."),
            option("--labels-key", default="labels", show_default=True, help="Key of the labels in an .npz file."),
            option("--mean", type=Floats(), example=[0.485, 0.456, 0.406], help="Subtract this, per channel."),
            option("--std", type=Floats(), example=[0.229, 0.224, 0.225], help="Divide by this, per channel."),
            option("--already-normalised", is_flag=True, help="The data are normalised by --mean/--std already; use them for raw units only."),
            option("--input-range", type=Floats(), metavar="LOW,HIGH", example=[0, 1], help="Range that pixel values 0-255 are mapped to."),
            option("--layout", type=click.Choice(["NCHW", "NHWC"]), help="Order of the axes the model takes."),
            option("--resize", type=click.IntRange(min=1), example=256, help="Resize images: their shorter side to this many pixels."),
            option("--crop", type=click.IntRange(min=1), example=224, help="Crop the centre of images to this many pixels."),
        ],
        function,
        "data",
    )  # fmt: skip


def run_options(function: F) -> F:
    """Options that say how to measure: all settings but those of the data."""
    return _apply(_settings_of("model", "measure", "run"), function, "measure")


def model_options(function: F) -> F:
    """Options that say how the model is read."""
    return _apply(_settings_of("model"), function, "model")


def served_options(function: F, *, predict: bool = True) -> F:
    """Options that say how a model is asked that is served at an address; ``predict`` is for commands that audit one."""
    by_function = option(
        "--predict", metavar="MODULE:FUNCTION",
        help="Audit a function of yours in place of MODEL: it takes a batch of rows (B, …) and returns (B, K). It is run, so the command "
        "line alone names it; FILE.py:FUNCTION names one of a file.",
    )  # fmt: skip
    return _apply(
        [
            *([by_function] if predict else []),
            option("--concurrency", type=click.IntRange(1, 256), metavar="N", example=4,
                   help="Requests under way at a time.  [default: 4; of --predict 1]"),
            option("--max-qps", type=click.FloatRange(min=0, min_open=True), metavar="R", example=20.0,
                   help="Requests a second at most, those made again among them.  [default: no limit]"),
            option("--max-queries", type=click.IntRange(min=1), metavar="N", example=2000,
                   help="Requests in all, those made again among them; the audit then ends with what is measured: partial, exit code 4. A "
                   "request has --batch rows at most.  [default: no limit]"),
            option("--request-timeout", type=Duration(), metavar="SECONDS", default="60", show_default=True, example="60",
                   help="Time that a request may take, from the connection to the last byte."),
            option("--retries", type=click.IntRange(0, 100), default=6, show_default=True, example=6,
                   help="How often a request that brought no answer is made again, after waits that grow; its rows are left out then."),
            option("--ca-file", metavar="PATH", example="ca.pem",
                   help="PEM file of the authorities that the server's certificate is held against.  [default: the system's]"),
        ],
        function,
        "served",
    )  # fmt: skip


def isolation_options(function: F) -> F:
    """Options that say how far a run may go, and what outlives a crash."""
    return _apply(
        [
            option("--isolate", type=click.Choice(["auto", "on", "off"]), default="auto", show_default=True,
                   help="Run the model in a process of its own: a crash or a hang of ONNX Runtime then costs the sample at fault, not the "
                   "audit. auto does where that costs next to nothing (Linux), with several models, and where --max-memory or "
                   "--custom-op-library asks for it."),
            option("--dry-run", is_flag=True,
                   help="Open the model, time a few calls of all that would be done, print what it would take, and write nothing."),
            option("--timeout", type=Duration(), metavar="SECONDS", example="10m",
                   help="End the run after this time (90, 10m, 2h) and write what was finished: partial, exit code 4."),
            option("--call-timeout", type=Duration(), metavar="SECONDS", default="300", show_default=True, example="300",
                   help="Take a call of ONNX Runtime for hung after this time, or after 100 times the longest call so far (needs isolation)."),
            option("--max-memory", type=Size(), metavar="SIZE", example="4G",
                   help="End the process that runs the model where it holds more resident memory than this, such as 4G; it goes on with "
                   "smaller calls, or without the sample at fault (Linux)."),
        ],
        function,
        "run",
    )  # fmt: skip


def fleet_options(function: F) -> F:
    """Options that say which part of an audit is measured here."""
    return _apply(
        [
            option("--plan", metavar="PATH", example="plan.json",
                   help="Measure a shard of this plan, which `onnxfim plan` wrote; model, data and settings are the plan's."),
            option("--shard", metavar="i/n|auto", example="2/8",
                   help="Which shard of how many, from 1; auto where a scheduler's environment tells (Slurm, Kubernetes, GitLab and others). "
                   "It is written to shard-i-of-n.json in the working folder, or to -o FOLDER or FILE."),
            option("--devices", metavar="0,1,…", example="0-7",
                   help="Divide the samples among these devices of this machine, a process for each: cards of the provider, or, on the CPU, "
                   "shares of its cores. The result is that of one."),
            option("--ray", is_flag=False, flag_value="local", metavar="[ADDRESS]", example="head:6379",
                   help="Measure on a Ray cluster: HOST:PORT of its head, auto for the one that this machine belongs to; without ADDRESS on "
                   "the cores of this machine. Workers that are lost are replaced (extra ray)."),
        ],
        function,
        "fleet",
    )  # fmt: skip


def cache_options(function: F) -> F:
    """Options that say what is kept between runs."""
    return _apply(
        [
            option("--no-cache", is_flag=True, help="Neither use nor keep results of earlier runs."),
            option("--cache-dir", metavar="DIR", example=".onnxfim-cache", help="Where results are kept, so that an interrupted run goes on.  [default: the user's cache folder]"),
        ],
        function,
        "run",
    )  # fmt: skip
