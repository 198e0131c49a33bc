"""Groups of options shared by commands; those of settings are made from what the settings declare."""

from __future__ import annotations

import typing
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, TypeAlias, TypeVar

import click

from onnxfim.cli.spelled import AutoFloat, AutoInt, Duration, Floats, OutputFile, Percent, Rise, Size, TwoNumbers
from onnxfim.record.declared import Setting
from onnxfim.record.settings import SETTINGS

F = TypeVar("F", bound=Callable[..., Any])
Decorator: TypeAlias = Callable[[Any], Any]


class ExampleOption(click.Option):
    """An option with an ``example`` for the configuration file; None where its default is one."""

    def __init__(self, *args: Any, example: object = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.example = example


option = partial(click.option, cls=ExampleOption)


def _apply(options: list[Decorator], function: F) -> F:
    """The function with the options, which `--help` lists in their order."""
    for decorate in reversed(options):
        function = decorate(function)
    return function


def setting_option(setting: Setting) -> Decorator:
    """The option of a setting; its value goes into `Settings` as it is."""
    facts = setting.facts
    given: dict[str, Any] = {"example": facts.example, "metavar": facts.metavar or None, "help": facts.help}
    name = f"--{setting.option}"
    if setting.kind is bool:
        name += f"/--no-{setting.option}" if setting.default else ""
        given |= {"is_flag": True, "default": setting.default, "show_default": setting.default}
    elif facts.auto:
        given |= {"type": AutoInt() if setting.kind is int else AutoFloat(), "default": "auto", "show_default": True}
    else:
        repeats = tuple[str, ...] in (setting.kind, *typing.get_args(setting.kind))
        given |= {"type": _type(setting), "multiple": repeats, "default": setting.default, "show_default": not setting.optional}
        notes = ("; repeatable." if repeats else ".", f"  [default: {facts.unset}]" if setting.optional and facts.unset else "")
        given["help"] = facts.help.removesuffix(".") + "".join(notes)
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
        return click.IntRange(least, most)
    if kind is float:
        return click.FLOAT if facts.least is facts.most is None else click.FloatRange(facts.least, facts.most)
    return {tuple[float, ...]: Floats(), tuple[float, float]: TwoNumbers()}.get(kind)


def _settings_of(group: Literal["data", "run"]) -> list[Decorator]:
    """The options of all settings of a group."""
    return [setting_option(s) for s in SETTINGS if s.option is not None and s.facts.group == group]


def option_of(name: str) -> Decorator:
    """The option of one setting."""
    return setting_option(next(s for s in SETTINGS if s.name == name))


assets_option = option(
    "--html-assets", "assets", metavar="DIR", example="report_files", help="Write the page's style and pictures into this folder beside it, for hosts that block inline styles.",
)  # fmt: skip


def output_options(function: F) -> F:
    """Options that say what to write."""
    return _apply(
        [
            option("-o", "--output-file", "outputs", type=OutputFile(), multiple=True, metavar="FORMAT=PATH", example=["html=report.html", "json=report.json"],
                   help="Write html, json, csv, junit, sarif, markdown or comment; `-` is stdout; repeatable.  [default: html=report.html]"),
            assets_option,
        ],
        function,
    )  # fmt: skip


def given_options(context: click.Context) -> frozenset[str]:
    """Names of the options that were given, and not left at their defaults."""
    left = (click.core.ParameterSource.DEFAULT, click.core.ParameterSource.DEFAULT_MAP)
    return frozenset(name for name in context.params if context.get_parameter_source(name) not in left)


def gate_options(function: F) -> F:
    """Options that make an audit a check."""
    return _apply(
        [
            option("--fail-on", multiple=True, metavar="GATE", example=["lambda_max.p95 > 12.5", "clean_accuracy < 90%"],
                   help="Fail where this holds, such as 'lambda_max.p95 > 12.5', 'clean_accuracy < 90%' or findings.error; repeatable."),
            option("--baseline", metavar="PATH", example="baseline.json", help="Compare with this saved audit (JSON), at its step, scheme, method, seed and samples."),
            option("--max-regression", type=Rise(), metavar="PERCENT", example="10%",
                   help="With --baseline: fail where the mean rose by more than this.  [default: 10%]"),
            option("--regression-over", type=click.Choice(["samples", "population"]), default="samples", show_default=True,
                   help="Decide on the rise over these very samples, or over such samples in general (needs many more)."),
            option("--allow-inconclusive", is_flag=True,
                   help="Exit with 0 instead of 4 where the verdict is inconclusive: the audit is unsound, or a gate undecided."),
            option("--fail-on-inconclusive", is_flag=True, hidden=True, help="Has no effect: it is the default, which --allow-inconclusive undoes."),
            option("--exit-zero", is_flag=True, help="Exit with 0 instead of 1 where a gate failed."),
        ],
        function,
    )  # fmt: skip


def data_options(function: F, *, required: bool = True) -> F:
    """Options that say what the samples are."""
    return _apply(
        [
            option("--data", required=required, metavar="PATH|random", example="samples.npz", help="Samples: .npz, .npy, a folder of images, or `random`."),
            *_settings_of("data"),
            option("--labels", "labels_path", metavar="PATH", example="labels.npy", help="Labels in an .npy file of their own."),
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
    )  # fmt: skip


def run_options(function: F) -> F:
    """Options that say how to measure: all settings but those of the data."""
    return _apply(_settings_of("run"), function)


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
    )  # fmt: skip


def cache_options(function: F) -> F:
    """Options that say what is kept between runs."""
    return _apply(
        [
            option("--no-cache", is_flag=True, help="Neither use nor keep outputs of earlier runs."),
            option("--cache-dir", metavar="DIR", example=".onnxfim-cache", help="Where outputs are kept, so that an interrupted run goes on.  [default: the user's cache folder]"),
        ],
        function,
    )  # fmt: skip
