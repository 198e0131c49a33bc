"""Option types and groups of options shared by commands."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


class AutoInt(click.ParamType):  # type: ignore[type-arg,unused-ignore]  # generic from click 8.3 on
    """``auto`` (None) or a positive whole number."""

    name = "auto|n"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | None:
        if value is None or value == "auto":
            return None
        try:
            number = int(value)
        except ValueError:
            number = 0
        if number < 1:
            self.fail(f"{value!r} is not auto or a positive whole number.", param, ctx)
        return number


class AutoFloat(click.ParamType):  # type: ignore[type-arg,unused-ignore]  # generic from click 8.3 on
    """``auto`` (None) or a positive number."""

    name = "auto|r"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float | None:
        if value is None or value == "auto":
            return None
        try:
            return float(value)
        except ValueError:
            self.fail(f"{value!r} is not auto or a number.", param, ctx)


class Percent(click.ParamType):  # type: ignore[type-arg,unused-ignore]  # generic from click 8.3 on
    """A share, as ``5%`` or ``0.05``."""

    name = "percent"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        match = re.fullmatch(r"\s*([0-9.eE+-]+)\s*(%?)\s*", str(value))
        try:
            number = float(match.group(1)) / (100 if match.group(2) else 1) if match else float("nan")
        except ValueError:
            number = float("nan")
        if not 0 < number < 1:
            self.fail(f"{value!r} is not a share such as 5% or 0.05.", param, ctx)
        return number


class Regression(click.ParamType):  # type: ignore[type-arg,unused-ignore]  # generic from click 8.3 on
    """A rise, as ``10%`` or ``0.1``; 0 and more than 100 % are meant."""

    name = "percent"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        text = str(value).strip()
        try:
            number = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
        except ValueError:
            number = -1.0
        if not 0 <= number < float("inf"):
            self.fail(f"{value!r} is not a rise such as 10% or 0.1.", param, ctx)
        return number


class Floats(click.ParamType):  # type: ignore[type-arg,unused-ignore]  # generic from click 8.3 on
    """Numbers with commas between them, as ``0.485,0.456,0.406``."""

    name = "numbers"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, ...]:
        if isinstance(value, tuple):
            return value
        try:
            return tuple(float(v) for v in str(value).split(","))
        except ValueError:
            self.fail(f"{value!r} is not a number, or numbers with commas between them.", param, ctx)


class OutputFile(click.ParamType):  # type: ignore[type-arg,unused-ignore]  # generic from click 8.3 on
    """``FORMAT=PATH``, with one of ``formats``, or of all that an audit has."""

    name = "format=path"

    def __init__(self, formats: tuple[str, ...] = ()) -> None:
        self.formats = formats

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        if isinstance(value, tuple):
            return value
        from onnxfim.report.formats import FORMATS

        name, _, path = str(value).partition("=")
        formats = self.formats or tuple(FORMATS)
        if name not in formats or not path:
            self.fail(f"{value!r} is not FORMAT=PATH with a format of {', '.join(formats)}.", param, ctx)
        return name, path


PRECISION, STEP, FLOATS, OUTPUT, AUTO_INT, REGRESSION = Percent(), AutoFloat(), Floats(), OutputFile(), AutoInt(), Regression()


def _apply(options: list[Callable[[F], F]], function: F) -> F:
    for option in reversed(options):
        function = option(function)
    return function


assets_option = click.option(
    "--html-assets", "assets", metavar="DIR", help="Write the page's style and pictures into this folder beside it, for hosts that block inline styles.",
)  # fmt: skip


def output_options(function: F) -> F:
    """Options that say what to write."""
    return _apply(
        [
            click.option("-o", "--output-file", "outputs", type=OUTPUT, multiple=True, metavar="FORMAT=PATH",
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
            click.option("--fail-on", multiple=True, metavar="GATE",
                         help="Fail where this holds, such as 'lambda_max.p95 > 12.5', 'clean_accuracy < 90%' or findings.error; repeatable."),
            click.option("--baseline", metavar="PATH", help="Compare with this saved audit (JSON), at its step, scheme, method, seed and samples."),
            click.option("--max-regression", type=REGRESSION, metavar="PERCENT",
                         help="With --baseline: fail where the mean rose by more than this.  [default: 10%]"),
            click.option("--regression-over", type=click.Choice(["samples", "population"]), default="samples", show_default=True,
                         help="Decide on the rise over these very samples, or over such samples in general (needs many more)."),
            click.option("--fail-on-inconclusive", is_flag=True, help="Exit with 4 where the verdict is inconclusive."),
            click.option("--exit-zero", is_flag=True, help="Exit with 0 instead of 1 where a gate failed."),
        ],
        function,
    )  # fmt: skip


def data_options(function: F, *, required: bool = True) -> F:
    """Options that say what the samples are."""
    return _apply(
        [
            click.option("--data", required=required, metavar="PATH|random", help="Samples: .npz, .npy, a folder of images, or `random`."),
            click.option("--samples", type=click.IntRange(min=1), help="Audit at most this many samples.  [default: all]"),
            click.option("--labels", "labels_path", metavar="PATH", help="Labels in an .npy file of their own."),
            click.option("--inputs-key", default="inputs", show_default=True, help="Key of the samples in an .npz file."),
            click.option("--labels-key", default="labels", show_default=True, help="Key of the labels in an .npz file."),
            click.option("--mean", type=FLOATS, help="Subtract this, per channel."),
            click.option("--std", type=FLOATS, help="Divide by this, per channel."),
            click.option("--already-normalised", is_flag=True, help="The data are normalised by --mean/--std already; use them for raw units only."),
            click.option("--input-range", type=FLOATS, metavar="LOW,HIGH", help="Range that pixel values 0-255 are mapped to."),
            click.option("--layout", type=click.Choice(["NCHW", "NHWC"]), help="Order of the axes the model takes."),
            click.option("--resize", type=click.IntRange(min=1), help="Resize images: their shorter side to this many pixels."),
            click.option("--crop", type=click.IntRange(min=1), help="Crop the centre of images to this many pixels."),
        ],
        function,
    )  # fmt: skip


def run_options(function: F) -> F:
    """Options that say how to measure."""
    return _apply(
        [
            click.option("--method", type=click.Choice(["auto", "gradient", "sketch", "exact"]), default="auto", show_default=True,
                         help="Derivative of the graph, random directions, all coordinates by differences, or the best of these that works."),
            click.option("--budget", type=click.IntRange(min=12), default=101, show_default=True, help="Forward passes per sample."),
            click.option("--precision", type=PRECISION, help="Half-width of the mean's 95 % interval to reach, such as 5%."),
            click.option("--max-budget", type=click.IntRange(min=12), default=2000, show_default=True,
                         help="With --precision: forward passes per sample at most."),
            click.option("--step", type=STEP, default="auto", show_default=True, help="Amplitude per coordinate, in input units."),
            click.option("--scheme", type=click.Choice(["auto", "forward", "central", "dithered"]), default="auto", show_default=True,
                         help="Finite differences; dithered ones average out the rounding of int8 and float16 files."),
            click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of all directions."),
            click.option("--batch", type=AUTO_INT, default="auto", show_default=True, help="Rows per call of the runtime."),
            click.option("--provider", "providers", multiple=True, default=("auto",), show_default=True,
                         help="cpu, cuda, tensorrt, openvino, … or any ONNX Runtime provider; repeatable, in order of preference."),
            click.option("--require-provider", is_flag=True, help="Fail if the provider is not obtained, instead of falling back."),
            click.option("--tf32", is_flag=True, help="Allow TF32 on CUDA."),
            click.option("--output-kind", type=click.Choice(["auto", "logits", "probabilities", "sigmoid", "gaussian"]), default="auto",
                         show_default=True, help="What the outputs are."),
            click.option("--temperature", type=STEP, default="auto", show_default=True, help="Temperature of the calibrated values; auto fits it on the labels."),
            click.option("--replay", type=click.IntRange(min=0), default=64, show_default=True,
                         help="Samples whose KL curve along the worst direction is measured (needs gradients)."),
            click.option("--attack", type=click.Choice(["l2", "linf"]), help="Attack the model and correlate every measure with the result (needs gradients)."),
            click.option("--epsilon", type=float, help="Radius of the attack, in raw units where --std is given.  [default: median smallest attack]"),
            click.option("--attack-range", type=FLOATS, metavar="LOW,HIGH", help="Range of input values the attack stays in.  [default: that of the data]"),
            click.option("--attack-samples", type=click.IntRange(min=1), default=100, show_default=True, help="Samples to attack at most."),
            click.option("--bounds/--no-bounds", default=True, show_default=True, help="Read the architecture class and the spectral bound from the weights."),
            click.option("--surrogate", is_flag=True, help="Differentiate a clip surrogate of a quantised file, labelled as such."),
            click.option("--sigma", type=float, default=1.0, show_default=True, help="Standard deviation for --output-kind gaussian."),
            click.option("--input", "input_name", metavar="NAME", help="Input to audit, where the model has several."),
            click.option("--output", "output_name", metavar="NAME", help="Output to audit, where the model has several."),
        ],
        function,
    )  # fmt: skip


def cache_options(function: F) -> F:
    """Options that say what is kept between runs."""
    return _apply(
        [
            click.option("--no-cache", is_flag=True, help="Neither use nor keep outputs of earlier runs."),
            click.option("--cache-dir", metavar="DIR", help="Where outputs are kept, so that an interrupted run goes on.  [default: the user's cache folder]"),
        ],
        function,
    )  # fmt: skip
