"""The command `export-vnnlib`: properties of samples, for verifiers to prove or refute."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from onnxfim.cli.config import configured
from onnxfim.cli.console import Console
from onnxfim.cli.ending import errors_in_one_line
from onnxfim.cli.helping import Example, ExplainedCommand
from onnxfim.cli.options import data_options, model_options, option, option_of, setting_value
from onnxfim.cli.spelled import Duration, Fractions
from onnxfim.record.settings import SETTINGS, Settings


@click.command(
    cls=ExplainedCommand,
    short_help="Write properties of samples for verifiers (VNN-LIB).",
    examples=(
        Example(
            "Ten samples from the worst to the best, two boxes each",
            "onnxfim export-vnnlib model.onnx --data samples.npz --epsilon 2/255,8/255 \\\n    -o properties",
        ),
        Example(
            "The samples as a saved audit ranks them",
            "onnxfim export-vnnlib model.onnx --data samples.npz --from audit.json \\\n    --epsilon 8/255 -o properties",
        ),
    ),
    pages=("howto/verifiers.md",),
)
@click.argument("model", type=click.Path())
@data_options
@model_options
@option("--epsilon", "epsilons", type=Fractions(), required=True, metavar="SIZES", group="measure", example=["2/255", "8/255"],
        help="Half-widths of the boxes, commas between them, in raw input units where these are known: 8/255, 0.03.")  # fmt: skip
@option("--count", type=click.IntRange(min=1), default=10, show_default=True, group="measure",
        help="Samples at most, spread over the ranking by sensitivity: the worst, the middle and the best among them.")  # fmt: skip
@option("--from", "ranked", metavar="PATH", group="measure", example="audit.json",
        help="A saved audit of this file and these samples, which ranks them; without it they are measured first.")  # fmt: skip
@option_of("attack_range")
@option_of("method")
@option_of("seed")
@option("--vnnlib-version", "version", type=click.Choice(["1", "2"]), default="1", show_default=True, group="output",
        help="Version of VNN-LIB: 1.0, which most tools read, or 2.0.")  # fmt: skip
@option("--instance-timeout", "timeout", type=Duration(), default="300", show_default=True, metavar="SECONDS", group="output",
        example="300",
        help="Seconds that the list of instances gives to each property.")  # fmt: skip
@option("-o", "--output-folder", "folder", required=True, metavar="DIR", group="output", example="properties",
        help="Where to: a folder that is not there, an empty one, or an older one of this command.")  # fmt: skip
@option("-q", "--quiet", is_flag=True, group="output", help="Print errors and the folder's line only.")
@configured
@errors_in_one_line
def export_vnnlib_command(model: str, folder: str, quiet: bool, **options: Any) -> None:
    """Write the property "the prediction stays the same in this box" for some samples, as VNN-LIB, with the network it is about.

    DIR then holds network.onnx (one row a call, ending in the scores), a .vnnlib file for each sample and size, instances.csv as
    VNN-COMP's tools read it, and properties.json, which tells what each is of.
    """
    console = Console(quiet)
    with console.said_where_slow("loading ONNX Runtime"):
        from onnxfim.auditing.exporting_properties import INSTANCES, NAMES, property_files
        from onnxfim.cli.audit_command import read_samples
        from onnxfim.graph.load import load_model
        from onnxfim.record.audit import Audit
        from onnxfim.record.writing_folders import folder_destination, write_folder

    what = "folder of this command"
    folder_destination(folder, NAMES, INSTANCES, what=what)
    with console.said_where_slow("reading the model and the samples"):
        file = load_model(model)
        samples, scale = read_samples(file, options)
        ranked = None if options["ranked"] is None else Audit.load(options["ranked"])
    settings = _settings(options, scale)
    with console.progress() as report:
        made = property_files(
            file, samples, settings, epsilons=options["epsilons"], count=options["count"],
            version=2 if options["version"] == "2" else 1,
            timeout=options["timeout"], ranked=ranked, progress=report,
        )  # fmt: skip
    write_folder(folder, made.files, INSTANCES, names=NAMES, what=what)
    properties = made.samples * len(made.epsilons)
    console.result(f"{folder}: {properties:,} properties of {made.samples:,} samples, half-widths in {made.units}.")
    changed = "; ".join(made.network) or "the file as it is"
    console.say(f"network.onnx: {changed}; it gives what the file gives.")


def _settings(options: Mapping[str, Any], scale: tuple[float, ...] | None) -> Settings:
    given = {s.name: setting_value(s, options[s.name]) for s in SETTINGS if s.option is not None and s.name in options}
    return Settings(**given, input_scale=scale, flip=False, replay=0, bounds=False)


export_vnnlib_command.name = "export-vnnlib"
