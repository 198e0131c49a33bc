"""Settings that say all about themselves where they are declared: help, limits, option, how they print, whether they matter."""

from __future__ import annotations

import math
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from functools import cache
from typing import Any, Concatenate, Literal, ParamSpec, TypeVar

from onnxfim.errors import SettingsError
from onnxfim.record.limits import SIZES, in_64_bits, sized

T = TypeVar("T")
P = ParamSpec("P")

_LIMITS = ("least", "most", "over", "under")


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What is known of a setting beside its name, type and default: plain data, of which others make options, rows and words.

    Attributes:
        help: What it asks for, in the words of ``--help``, of the configuration file and of the class's documentation.
        least: Smallest value.
        most: Largest value.
        over: Value that it must be above.
        under: Value that it must be below.
        good: Whether the settings as a whole allow its value, where limits do not say it.
        wrong: The message's words after the name where a value is refused, with ``{value}``, ``{least}`` and ``{settings}`` in it;
            those that the limits or the choices give where empty.
        option: Long name of the option, without dashes; None where the command line has none, that of the field where empty.
        group: The options it stands among in ``--help``: what the samples are, how the model is read, what is measured, or how it
            is run.
        metavar: What ``--help`` calls the option's value; the type says it where empty.
        auto: Whether the command line spells "no value" as ``auto``.
        share: Whether it is a share of one, given and printed as a percentage.
        unset: What "no value" stands for, in words.
        example: A value for the configuration file that ``onnxfim init`` writes; the default where there is none.
        label: Its name in the report; that of the field where empty.
        prints: How the report prints a value, with ``{value}`` and ``{settings}`` in it.
        words: How the report prints no and yes.
        row: When the report has a row for it; ``never`` is for those that the run's or the model's rows tell.
        matters: Whether a difference in it is told where two audits are compared.
        paired: The part of a baseline that it is taken from where it is not given, so that the noise of both audits is shared.
        with_setting: One that must be taken from the baseline too, for this one to be.
        identifies: Whether it is part of what was asked, and so of the report id.
    """

    help: str
    least: float | None = None
    most: float | None = None
    over: float | None = None
    under: float | None = None
    good: Callable[[Any], bool] | None = None
    wrong: str = ""
    option: str | None = ""
    group: Literal["data", "model", "measure", "run"] = "measure"
    metavar: str = ""
    auto: bool = False
    share: bool = False
    unset: str = ""
    example: object = None
    label: str = ""
    prints: str = "{value}"
    words: tuple[str, str] = ("no", "yes")
    row: Literal["always", "changed", "never"] = "always"
    matters: bool = False
    paired: Literal["", "run", "settings"] = ""
    with_setting: str = ""
    identifies: bool = True


def _declared_by(facts: Callable[P, Facts]) -> Callable[Concatenate[T, P], T]:
    def setting(default: T, /, *args: P.args, **kwargs: P.kwargs) -> T:
        found = facts(*args, **kwargs)
        limits = {name: limit for name in _LIMITS if (limit := getattr(found, name)) is not None}
        return field(default=default, metadata={"facts": found, **limits})

    return setting


#: Declares a field of a frozen dataclass: its default, then any of `Facts` by keyword. Limits stand in the field's metadata too.
setting = _declared_by(Facts)


@dataclass(frozen=True)
class Setting:
    """A declared field: its name, default and type (``kind``, without None where it is ``optional``), and its facts."""

    name: str
    default: Any
    kind: Any
    optional: bool
    facts: Facts

    @property
    def option(self) -> str | None:
        """Long name of its option, without dashes, or None where it has none."""
        return self.name.replace("_", "-") if self.facts.option == "" else self.facts.option

    @property
    def label(self) -> str:
        """Its name in a report."""
        return self.facts.label or self.name.replace("_", " ").capitalize()

    @property
    def choices(self) -> tuple[str, ...]:
        """The words it may be; empty where it is no choice."""
        return _literals(self.kind)

    def complaint(self, settings: object) -> str | None:
        """Why its value among ``settings`` cannot be, in one line, or None where it can."""
        value = getattr(settings, self.name)
        if self._within(value) and (self.facts.good is None or self.facts.good(settings)):
            if isinstance(value, int) and not in_64_bits(value):
                return f"{self.name}: a whole number of {value.bit_length():,} bits is too large. Give at most 2^63 - 1."
            wild = [v for v in (value if isinstance(value, tuple) else [value]) if isinstance(v, float) and not sized(v)]
            least, most = SIZES
            return f"{self.name}: {wild[0]:.3g} is no size to compute with. Give one from {least:g} to {most:g}." if wild else None
        wrong = self.facts.wrong or f"{{value!r}} is not {self._expected()}."
        return f"{self.name}: " + wrong.format(value=value, least=self.facts.least, settings=settings)

    def _within(self, value: Any) -> bool:
        f = self.facts
        if value is None and self.optional:
            return True
        if self.choices:
            return value in self.choices
        if all(getattr(f, name) is None for name in _LIMITS):
            return True
        return (
            (f.least is None or value >= f.least)
            and (f.most is None or value <= f.most)
            and (f.over is None or value > f.over)
            and (f.under is None or value < f.under)
            and (isinstance(value, int) or math.isfinite(value))
        )

    def _expected(self) -> str:
        f = self.facts
        if self.choices:
            return " or ".join((", ".join(self.choices[:-1]), self.choices[-1]))
        if f.share:
            return "between 0 and 100 %"
        if f.over == 0 and f.under is None:
            return "a positive number"
        told = (("at least", f.least), ("at most", f.most), ("more than", f.over), ("less than", f.under))
        return " and ".join(f"{words} {limit}" for words, limit in told if limit is not None) or "what it may be"


@cache
def settings_of(declaring: type[Any]) -> tuple[Setting, ...]:
    """The declared fields of a dataclass, in their order."""
    hints = typing.get_type_hints(declaring)
    return tuple(_setting(f.name, f.default, hints[f.name], f.metadata["facts"]) for f in fields(declaring))


def check(settings: Any) -> None:
    """Raise where a value of a dataclass of declared fields cannot be.

    Raises:
        SettingsError: the first of them, and why.
    """
    declaring: type = type(settings)
    for declared in settings_of(declaring):
        complaint = declared.complaint(settings)
        if complaint is not None:
            raise SettingsError(complaint)


def documented(declaring: type[T]) -> type[T]:
    """The dataclass with an Attributes section made of its fields' helps."""
    helps = (f"    {f.name}: {f.metadata['facts'].help}" for f in fields(typing.cast(Any, declaring)))
    declaring.__doc__ = "\n\n".join((declaring.__doc__ or "", "Attributes:\n" + "\n".join(helps)))
    return declaring


def _setting(name: str, default: Any, hint: Any, facts: Facts) -> Setting:
    """The setting of a field of the type ``hint``."""
    kinds = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    some = tuple(k for k in kinds if k is not type(None))
    kind = some[0] if len(some) == 1 else typing.Union[some]  # noqa: UP007 (the union of a tuple)
    return Setting(name, default, kind, len(some) < len(kinds), facts)


def _literals(kind: Any) -> tuple[str, ...]:
    """All words of a Literal, or of a union of these."""
    if typing.get_origin(kind) is Literal:
        return typing.get_args(kind)
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return tuple(word for part in typing.get_args(kind) for word in _literals(part))
    return ()
