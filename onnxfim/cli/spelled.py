"""Values as the command line spells them: click types."""

from __future__ import annotations

import re
from typing import Any

import click
from click.shell_completion import CompletionItem

from onnxfim.cli import completing


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


class Rise(click.ParamType):  # type: ignore[type-arg,unused-ignore]  # generic from click 8.3 on
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


class Fractions(click.ParamType):  # type: ignore[type-arg,unused-ignore]  # generic from click 8.3 on
    """Positive sizes with commas between them, each a number or a fraction: ``2/255,0.03``."""

    name = "sizes"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, ...]:
        if isinstance(value, tuple):
            return value
        found = tuple(self._size(text, param, ctx) for text in str(value).split(","))
        return tuple(dict.fromkeys(found))

    def _size(self, text: str, param: click.Parameter | None, ctx: click.Context | None) -> float:
        above, slash, below = text.partition("/")
        try:
            size = float(above) / (float(below) if slash else 1.0)
        except (ValueError, ZeroDivisionError):
            size = 0.0
        if not 0 < size < float("inf"):
            self.fail(f"{text.strip()!r} is no size such as 8/255 or 0.03.", param, ctx)
        return size


class Names(click.ParamType):  # type: ignore[type-arg,unused-ignore]  # generic from click 8.3 on
    """Names with commas between them, as ``age,height``; one that holds a comma stands in quotation marks."""

    name = "names"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        if isinstance(value, tuple):
            return value
        import csv

        found = tuple(name.strip() for row in csv.reader([str(value)], skipinitialspace=True) for name in row)
        if not found or not all(found):
            self.fail(f"{value!r} is no list of names with commas between them.", param, ctx)
        return found


class TwoNumbers(Floats):
    """Two numbers with a comma between them, as ``0,1``."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, ...]:
        found = super().convert(value, param, ctx)
        if len(found) != 2:
            self.fail(f"{len(found)} numbers, expected two: {param.metavar if param and param.metavar else 'A,B'}.", param, ctx)
        return found


class NamedText(click.ParamType):  # type: ignore[type-arg,unused-ignore]  # generic from click 8.3 on
    """``KEY=VALUE``, both of them text."""

    name = "key=value"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        if isinstance(value, tuple):
            return value
        key, equals, text = str(value).partition("=")
        if not key.strip() or not equals:
            self.fail(f"{value!r} is not KEY=VALUE, such as owner=vision.", param, ctx)
        return key.strip(), text.strip()


class Duration(click.ParamType):  # type: ignore[type-arg,unused-ignore]  # generic from click 8.3 on
    """A time in seconds, as ``90``, ``1.5``, ``10m`` or ``2h``."""

    name = "seconds"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        match = re.fullmatch(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*([smhd]?)\s*", str(value))
        seconds = float(match.group(1)) * {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}[match.group(2)] if match else 0.0
        if not 0 < seconds < float("inf"):
            self.fail(f"{value!r} is not a time such as 90, 10m or 2h.", param, ctx)
        return seconds


class Size(click.ParamType):  # type: ignore[type-arg,unused-ignore]  # generic from click 8.3 on
    """A number of bytes, as ``4G``, ``512M`` or ``1.5GiB``."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        match = re.fullmatch(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*([KMGT]?)(?:i?B)?\s*", str(value), re.IGNORECASE)
        size = float(match.group(1)) * 2.0 ** {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}[match.group(2).upper()] if match else 0.0
        if not 1 <= size < 2.0**63:
            self.fail(f"{value!r} is not a size such as 4G or 512M.", param, ctx)
        return int(size)


class OutputFile(click.ParamType):  # type: ignore[type-arg,unused-ignore]  # generic from click 8.3 on
    """``FORMAT=PATH``, with one of ``formats``, or of all that an audit has, among them folders: ``FORMAT=DIR``.

    With ``bare`` a path alone is one too, of no format.
    """

    name = "format=path"

    def __init__(self, formats: tuple[str, ...] = (), *, bare: bool = False) -> None:
        self.formats, self.bare = formats, bare

    @property
    def known(self) -> tuple[str, ...]:
        """The formats that it takes."""
        from onnxfim.report.formats import FOLDERS, FORMATS

        return self.formats or (*FORMATS, *FOLDERS)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        if isinstance(value, tuple):
            return value
        from onnxfim.report.formats import FOLDERS

        name, _, path = str(value).partition("=")
        if name not in self.known or not path:
            if self.bare and "=" not in str(value):
                return "", str(value)
            self.fail(f"{value!r} is not FORMAT=PATH with a format of {', '.join(self.known)}.", param, ctx)
        if name in FOLDERS and path == "-":
            self.fail(f"{value!r}: is a folder, which stdout cannot hold. Write {name}=DIR.", param, ctx)
        return name, path

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """``FORMAT=``, then files or folders."""
        from onnxfim.report.formats import FOLDERS, FORMATS

        return completing.formats(self.formats or tuple(FORMATS), incomplete, folders=() if self.formats else tuple(FOLDERS))
