"""Options from a file and from the environment: command line before ``ONNXFIM_*`` before the file before the default.

The file is ``onnxfim.toml``, or ``[tool.onnxfim]`` in ``pyproject.toml``, of the current folder. Its keys are the long names of the
options of ``audit``; those of another command stand in a table named for it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from onnxfim.auditing.kept_stores import LIMIT_VARIABLE as CACHE_LIMIT
from onnxfim.cli.console import Console
from onnxfim.cli.helping import by_heading
from onnxfim.cli.options import option
from onnxfim.errors import lfs_pointer
from onnxfim.record.provider_option import loads_code
from onnxfim.runtime.available_memory import LIMIT as MEMORY_LIMIT
from onnxfim.served.address import names_address
from onnxfim.served.terms import TOKEN

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

F = TypeVar("F", bound=Callable[..., Any])

FILE = "onnxfim.toml"
_PREFIX = "ONNXFIM_"
_TABLE = "onnxfim"
_SHOWN = 200  # letters of a value in a message
_MAIN = "audit"  # the command whose keys need no table
# Options that neither a file nor the environment sets: a library is loaded into the process, a function or a program is run, so
# only a person names one.
_UNSET = ("config", "help", "version", "provider-library", "custom-op-library", "predict", "verifier")
# Variables that are no option's: a token is a secret, which no command line may show; the others are of the machine.
_VARIABLES = frozenset({TOKEN, MEMORY_LIMIT, CACHE_LIMIT})


@dataclass(frozen=True)
class ConfigFile:
    """A configuration file: its keys, and how to call it in messages."""

    where: str
    keys: Mapping[str, Any]


@dataclass(frozen=True)
class FoundValue:
    """A value as text (or texts, for a repeatable option), and where it was found."""

    where: str
    value: str | list[str]


def configured(function: F) -> F:
    """Give a command ``--config``, and its other options their values from the file and the environment."""
    return option(
        "--config", metavar="PATH", is_eager=True, expose_value=False, callback=_configure, envvar="ONNXFIM_CONFIG",
        group="general", help="Read options from this TOML file.  [default: onnxfim.toml, or [tool.onnxfim] in pyproject.toml]",
    )(function)  # fmt: skip


def _configure(context: click.Context, _: click.Parameter, path: str | None) -> None:
    if context.resilient_parsing:
        return
    root = context.find_root().command
    listed = root.commands if isinstance(root, click.Group) else {}
    commands = {name: c for name, c in listed.items() if any(p.name == "config" for p in c.params)}
    try:
        file = read_file(path)
        _warn(os.environ, commands.values())
        values = {
            **from_file(file, context.command, commands),
            **from_environment(os.environ, context.command),
        }
        context.default_map = {name: _checked(context, name, value) for name, value in values.items()}
    except ValueError as error:
        raise click.UsageError(str(error), context) from error


def read_file(path: str | None = None) -> ConfigFile:
    """The configuration at ``path``, or that of the current folder (which may have none).

    Raises:
        ValueError: it cannot be read, or is no TOML.
    """
    if path is not None:
        record = _toml(Path(path))
        return ConfigFile(path, _own(record) if Path(path).name == "pyproject.toml" else record)
    if Path(FILE).is_file():
        return ConfigFile(FILE, _toml(Path(FILE)))
    project = Path("pyproject.toml")
    return ConfigFile(str(project), _own(_toml(project)) if project.is_file() else {})


def _own(record: Mapping[str, Any]) -> Mapping[str, Any]:
    tool = record.get("tool", {})
    own = tool.get(_TABLE, {}) if isinstance(tool, dict) else {}
    if not isinstance(own, dict):
        raise ValueError(f"pyproject.toml: tool.{_TABLE} is {_shortened(own)}, expected a table. Write [tool.{_TABLE}].")
    return own


def _toml(path: Path) -> dict[str, Any]:
    try:
        if path.exists() and not path.is_file():
            raise ValueError(f"{path}: is no regular file, expected a TOML file. Check the path.")
        content = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror}), expected a TOML file. Check the path.") from error
    if (pointer := lfs_pointer(content)) is not None:
        raise ValueError(f"{path}: {pointer}")
    try:
        return tomllib.loads(content.decode("utf-8"))
    except RecursionError as error:
        raise ValueError(
            f"{path}: is nested too deeply to be read. Mend it, or write a new one with `onnxfim init --force`."
        ) from error
    except ValueError as error:  # no UTF-8, no TOML, a number of thousands of digits
        raise ValueError(f"{path}: is not TOML ({error}). Mend it, or write a new one with `onnxfim init --force`.") from error


def settable(command: click.Command) -> dict[str, click.Parameter]:
    """The parameters of a command that a file may set, by their key: an option's long name, or a single argument's."""
    found: dict[str, click.Parameter] = {}
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            name = next((o.removeprefix("--") for o in parameter.opts if o.startswith("--")), None)
        else:
            name = parameter.name if parameter.nargs == 1 else None
        if name is not None and name not in _UNSET:
            found[name] = parameter
    return found


def from_file(file: ConfigFile, command: click.Command, commands: Mapping[str, click.Command]) -> dict[str, FoundValue]:
    """Values of the parameters of ``command``, by parameter name.

    Raises:
        ValueError: an unknown key (with the nearest known one), or a value of the wrong kind.
    """
    tables = {name: file.keys[name] for name in commands if isinstance(file.keys.get(name), dict)}
    top = {key: value for key, value in file.keys.items() if key not in tables}
    for key, value in top.items():
        if isinstance(value, dict):
            _known(f"{file.where}: table", key, commands)
        _known(f"{file.where}:", _spelled(key), settable(commands[_MAIN]))
    for name, table in tables.items():
        for key in table:
            _known(f"{file.where}: [{name}]", _spelled(key), settable(commands[name]))
    found: dict[str, FoundValue] = {}
    own, places = settable(command), [(f"{file.where}: [{command.name}]", tables.get(command.name or "", {}))]
    if command.name == _MAIN:
        places.insert(0, (file.where, top))
    for where, table in places:
        for key, value in table.items():
            parameter = own[_spelled(key)]
            found[parameter.name or key] = FoundValue(f"{where}: {key} = {_shortened(value)}", _text(where, key, value, parameter))
    if "provider_options" in found:
        _loads_nothing(found["provider_options"])
    _runs_nothing(found)
    _sends_no_token(found)
    return found


def _sends_no_token(found: Mapping[str, FoundValue]) -> None:
    """Raise where a file names an address that the token of the environment would be sent to: somebody else may have written it."""
    model = found.get("model")
    if model is not None and os.environ.get(TOKEN) and names_address(model.value):
        raise ValueError(f"{model.where}: names an address, to which {TOKEN} would be sent. Name it on the command line.")


def _runs_nothing(found: Mapping[str, FoundValue]) -> None:
    """Raise where the data would be a program: only the person who types the command may run one."""
    data = found.get("data")
    if data is not None and isinstance(data.value, str) and _names_code(data.value):
        raise ValueError(f"{data.where}: names a Python file, which only the command line may run. Give it as --data {data.value}.")


def _names_code(data: str) -> bool:
    """Whether that, or what is meant where something stands behind it, is what `user_loader` runs."""
    if ".py" not in data.lower():
        return False
    from onnxfim.data.user_loader import names_code  # here, where it matters: NumPy comes with it

    return names_code(data) or names_code(data.rstrip().rstrip(":"))


def _loads_nothing(options: FoundValue) -> None:
    """Raise where an option of a provider would load code: a file lies in a folder that somebody else may have written."""
    for text in [options.value] if isinstance(options.value, str) else options.value:
        if loads_code(text.partition("=")[0]):
            raise ValueError(
                f"{options.where}: {text!r} loads code, which no file may ask for. Give it as --provider-option {text}."
            )


def from_environment(environment: Mapping[str, str], command: click.Command) -> dict[str, FoundValue]:
    """Values of the parameters of ``command`` from variables such as ``ONNXFIM_MAX_BUDGET``; an empty one counts as unset.

    A repeatable option takes one value a line.
    """
    found: dict[str, FoundValue] = {}
    for key, parameter in settable(command).items():
        variable = variable_of(key)
        text = environment.get(variable, "")
        if text.strip():
            lines = [line.strip() for line in text.splitlines() if line.strip()]
            found[parameter.name or key] = FoundValue(f"{variable}={_shortened(text)}", lines if _repeats(parameter) else text)
    _runs_nothing(found)
    return found


def variable_of(key: str) -> str:
    """The environment variable of an option's long name."""
    return _PREFIX + key.replace("-", "_").upper()


def _warn(environment: Mapping[str, str], commands: Iterable[click.Command]) -> None:
    known = {variable_of(key) for c in commands for key in settable(c)} | {variable_of("config")} | _VARIABLES
    for name in sorted(environment):
        if name.startswith(_PREFIX) and name not in known:
            Console().say(f"warning: {name}: no option has this variable.{_nearest(name, known)}", colour="yellow")


def _known(where: str, key: str, known: Iterable[str]) -> None:
    known = sorted(known)
    if key not in known:
        raise ValueError(f"{where} {key!r} is unknown.{_nearest(key, known)} `onnxfim init` writes a file with every key.")


def _nearest(name: str, known: Iterable[str]) -> str:
    import difflib  # for a message alone

    near = difflib.get_close_matches(name, list(known), n=1)
    return f" Did you mean {near[0]!r}?" if near else ""


def _spelled(key: str) -> str:
    return key.replace("_", "-")


def _repeats(parameter: click.Parameter) -> bool:
    return isinstance(parameter, click.Option) and parameter.multiple


def _text(where: str, key: str, value: Any, parameter: click.Parameter) -> str | list[str]:
    """A TOML value as it would stand on the command line, so that the same types check it."""
    flag = isinstance(parameter, click.Option) and parameter.is_flag
    items = value if isinstance(value, list) else [value]
    if any(isinstance(v, bool) != flag or not isinstance(v, (bool, int, float, str)) for v in items) or (flag and value is items):
        wanted = "true or false" if flag else "a text, a number or a list of them"
        raise ValueError(f"{where}: {key} is {_shortened(value)}, expected {wanted}.")
    texts = [str(v).lower() if flag else str(v) for v in items]
    return texts if _repeats(parameter) else ",".join(texts)


def _shortened(value: object) -> str:
    """A value as a message shows it."""
    try:
        text = repr(value)
    except RecursionError:
        text = f"a {type(value).__name__} nested too deeply"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _checked(context: click.Context, name: str, value: FoundValue) -> str | list[str]:
    """The value, once the parameter's own type has taken it."""
    parameter = next(p for p in context.command.params if p.name == name)
    try:
        parameter.type_cast_value(context, value.value)
    except click.BadParameter as error:
        raise ValueError(f"{value.where}: {error.message}") from error
    return value.value


def template(command: click.Command) -> str:
    """A file with every key of ``command``, each with its help, commented out."""
    return "\n".join(_template(command))


def _template(command: click.Command) -> Iterator[str]:
    yield "# Options of onnxfim. The command line wins over ONNXFIM_* variables, and those over this file."
    yield f"# The same keys may stand in pyproject.toml under [tool.{_TABLE}]; other commands have tables, such as [compare]."
    yield ""
    keys = {id(parameter): key for key, parameter in settable(command).items() if not getattr(parameter, "hidden", False)}
    arguments = [p for p in command.params if not isinstance(p, click.Option)]
    for heading, parameters in (("", arguments), *by_heading(command.params)):
        offered = [p for p in parameters if id(p) in keys]
        if heading and offered:
            yield f"## {heading}"
            yield ""
        for parameter in offered:
            yield from _entry(keys[id(parameter)], parameter)


def _entry(key: str, parameter: click.Parameter) -> Iterator[str]:
    """A key with its help."""
    text = getattr(parameter, "help", None) or "What to audit: an ONNX file."
    yield f"# {text}"
    yield f"# {key} = {_literal(_example(key, parameter))}"
    yield ""


def _example(key: str, parameter: click.Parameter) -> object:
    """The example that the option names, else its default, else a value of its kind."""
    if not isinstance(parameter, click.Option):
        return f"{key}.onnx"
    example, default = getattr(parameter, "example", None), parameter.to_info_dict().get("default")
    if example is not None:
        return example
    if parameter.is_flag:
        return bool(default)
    if isinstance(default, (int, float, str, tuple)):
        return default
    if isinstance(parameter.type, click.Choice):
        return str(parameter.type.choices[0])
    if isinstance(parameter.type, click.IntRange):
        return parameter.type.min or 1
    return [] if parameter.multiple else (parameter.metavar or key)


def _literal(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_literal, value))}]"
    return '"' + str(value).replace("\\", "\\\\").replace('"', '\\"') + '"' if isinstance(value, str) else str(value)
