"""Two sets of measured values held against each other: documents become flat paths, flat paths are compared.

Pure functions; nothing here runs onnxfim or knows where files lie. Audits are compared whatever their layout: in 1.0 a sample's
``trace`` is a bare number whose interval stands under ``intervals``, from 2.0 on every measure is an object of its own.
"""

from __future__ import annotations

import csv
import difflib
import io
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from typing import Any, Literal, TypeAlias
from xml.etree import ElementTree

Leaf: TypeAlias = str | int | float | bool | None
Leaves: TypeAlias = dict[str, Leaf]

#: Relative difference up to which two numbers count as equal.
TOLERANCE = 1e-9
#: Numbers closer than this are equal. Real values reach down to 1e-264 (a sure prediction): only underflow is below.
FLOOR = 1e-300
#: The same for logarithms: one of a norm of 1 is 0 up to rounding.
LOG_FLOOR = 1e-12
#: The same for eigenvalues, as a share of the largest: those of a matrix without full rank are rounding.
EIGENVALUE_FLOOR = 1e-12

#: A sample's measures, which both layouts name alike.
MEASURES = (
    "lambda_max", "lambda_max_calibrated", "lambda_max_raw_units", "trace", "effective_rank", "boundary_distance",
    "logit_sensitivity", "attack_distance", "log10_fisher_bound",
)  # fmt: skip

#: Paths that hang on the clock, the machine or the version; they are not compared.
IGNORED = re.compile(
    r"""schema_version | seconds
    | run\.(seconds | times\..* | platform | versions\.onnxfim)
    | attack\.seconds
    | runs\[\d+\]\.tool\.driver\.(version | semanticVersion)""",
    re.VERBOSE,
)

#: The same in a page's text.
_LAYOUT = re.compile(r"\baudit schema \d+\.\d+")

_NUMBER = re.compile(r"\d+(?:\.\d+)?(?:[eE][-+]?\d+)?")


@dataclass(frozen=True)
class Document:
    """One file's content: flat paths, or lines of text (``lines`` None where it has paths)."""

    leaves: Leaves
    lines: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Difference:
    """One path that is not the same on both sides; ``relative`` is None where it is not about numbers."""

    path: str
    kind: Literal["differs", "only in A", "only in B"]
    a: object = None
    b: object = None
    relative: float | None = None

    def __str__(self) -> str:
        if self.kind != "differs":
            return f"{self.path}: {self.kind}, {_short(self.a if self.kind == 'only in A' else self.b)}"
        size = "" if self.relative is None else f" (relative {self.relative:.2g})"
        return f"{self.path}: {_short(self.a)} → {_short(self.b)}{size}"


@dataclass(frozen=True)
class Outcome:
    """What a comparison found: values compared, the largest relative difference that is within the tolerance, all that are not."""

    compared: int = 0
    rounding: float = 0.0
    differences: tuple[Difference, ...] = ()


@dataclass(frozen=True)
class Expected:
    """A pattern of paths that are meant to differ (``*`` any text, ``?`` one letter), and why."""

    pattern: str
    reason: str
    _match: re.Pattern[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        text = re.escape(self.pattern).replace(r"\*", ".*").replace(r"\?", ".")
        object.__setattr__(self, "_match", re.compile(text))

    def covers(self, path: str) -> bool:
        return self._match.fullmatch(path) is not None


def read_expected(text: str) -> tuple[Expected, ...]:
    """The lines ``pattern: reason`` of an allow file; empty lines and those from ``#`` on are left out.

    Raises:
        ValueError: a line without a reason.
    """
    found = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        pattern, colon, reason = line.partition(": ")
        if not colon or not pattern.strip() or not reason.strip():
            raise ValueError(f"line {number}: {line.strip()!r} has no reason, expected 'pattern: reason'. Say why it may differ.")
        found.append(Expected(pattern.strip(), reason.strip()))
    return tuple(found)


def read_document(name: str, text: str, places: Mapping[str, str] | None = None) -> Document:
    """A file's content, made comparable.

    Args:
        name: File name; its ending says what it is.
        text: Its content.
        places: Folders by what is written in their place, so that two checkouts' paths are equal; the longest go first.

    Raises:
        ValueError: it is not what its ending says.
    """
    for folder in sorted(places or {}, key=len, reverse=True):
        text = text.replace(folder, (places or {})[folder])
    ending = name.rpartition(".")[2]
    if ending in ("json", "sarif"):
        return Document(flatten(normalise(json.loads(text))))
    if ending == "csv":
        return Document(flatten({"rows": list(csv.DictReader(io.StringIO(text)))}))
    if ending == "xml":
        try:
            root = ElementTree.fromstring(text)
        except ElementTree.ParseError as error:
            raise ValueError(f"is not XML ({error})") from error
        return Document(flatten({root.tag: _element(root)}))
    lines = visible_text(text) if ending == "html" else text.splitlines()
    return Document({}, tuple(_LAYOUT.sub("audit schema", line.strip()) for line in lines if line.strip()))


def normalise(record: Any) -> Any:
    """An audit with every measure of a sample as an object, whatever its layout; anything else as it is."""
    samples = record.get("samples") if isinstance(record, dict) else None
    if not isinstance(samples, list) or not all(isinstance(s, dict) and "lambda_max" in s for s in samples):
        return record
    return {**record, "samples": [_sample(s) for s in samples]}


def _sample(record: Mapping[str, Any]) -> dict[str, Any]:
    """A sample's record with each measure as ``{value, low, high, kind, …}`` and no ``intervals``."""
    apart = record.get("intervals") or {}
    found = {k: v for k, v in record.items() if k != "intervals"}
    for name in MEASURES:
        if name not in found and name not in apart:
            continue
        bare, whole = found.get(name), apart.get(name)
        if whole is None:
            measure = dict(bare) if isinstance(bare, dict) else {"value": bare}
        else:
            measure = dict(whole)
            if bare != whole.get("value"):  # two homes of one value that disagree
                measure["bare"] = bare
        if measure.get("value") is None:  # the kind of nothing
            measure.pop("kind", None)
        if not measure.get("evaluations"):
            measure.pop("evaluations", None)
        found[name] = measure
    return found


def _own_name(item: Any) -> str | None:
    """What tells an item of a list from the others wherever it stands."""
    if not isinstance(item, dict):
        return None
    if isinstance(item.get("first"), str) and isinstance(item.get("second"), str):
        return f"{item.get('entry')}: {' ~ '.join(sorted((item['first'], item['second'])))}"
    found = item.get("id")
    return found if isinstance(found, str) else None


def flatten(value: Any, path: str = "") -> Leaves:
    """All leaves of nested dicts and lists by path, such as ``samples[3].trace.value``.

    A list adds its length as ``path[]``; a list whose items all have a name of their own (an ``id``, or the two measures of a
    correlation, in either order) is told apart by these. What is empty (null,
    an empty text, list or dict) becomes None.
    """
    if isinstance(value, dict) and value:
        return _joined(flatten(v, f"{path}.{k}" if path else str(k)) for k, v in value.items())
    if isinstance(value, list) and value:
        ids = [_own_name(v) for v in value]
        named = all(isinstance(i, str) for i in ids) and len(set(ids)) == len(ids)
        keys: Sequence[object] = ids if named else range(len(value))
        return {f"{path}[]": len(value), **_joined(flatten(v, f"{path}[{k}]") for k, v in zip(keys, value, strict=True))}
    return {path: None if isinstance(value, (dict, list)) or value == "" else value}


def _joined(parts: Iterable[Leaves]) -> Leaves:
    return {k: v for part in parts for k, v in part.items()}


def _element(element: ElementTree.Element) -> dict[str, Any]:
    """An XML element as a dict: its attributes, its text, its children by tag and by name, or by position where they have none."""
    found: dict[str, Any] = {f"@{k}": v for k, v in element.attrib.items()}
    if element.text and element.text.strip():
        found["text"] = element.text.strip()
    for position, child in enumerate(element):
        name = ".".join(v for k in ("classname", "name") if (v := child.get(k)))
        found[f"{child.tag}[{name or position}]"] = _element(child)
    return found


class _Text(HTMLParser):
    """Collects what a reader of a page sees, piece by piece."""

    def __init__(self) -> None:
        super().__init__()
        self.pieces: list[str] = []
        self._hidden = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._hidden += tag in ("style", "script")

    def handle_endtag(self, tag: str) -> None:
        self._hidden -= tag in ("style", "script")

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.pieces.append(" ".join(data.split()))


def visible_text(page: str) -> list[str]:
    """The pieces of text of an HTML page."""
    parser = _Text()
    parser.feed(page)
    return parser.pieces


def compare(a: Document, b: Document, *, tolerance: float = TOLERANCE) -> Outcome:
    """Everything in which two documents differ."""
    if a.lines is not None and b.lines is not None:
        return _compare_lines(a.lines, b.lines, tolerance)
    return compare_leaves(a.leaves, b.leaves, tolerance=tolerance)


def compare_leaves(a: Mapping[str, Leaf], b: Mapping[str, Leaf], *, tolerance: float = TOLERANCE) -> Outcome:
    """Everything in which two flat documents differ; None and absent are the same.

    A path that only B has is news, unless A says that nothing is there (null, an empty list): then it differs.
    """
    paths = [p for p in {**a, **b} if not IGNORED.fullmatch(p)]
    found = total(
        _compare_at(p, a.get(p), b.get(p), tolerance, known_empty=p in a or _said_empty(p, a), floor=_floor(p, a)) for p in paths
    )
    return replace(found, differences=tuple(_news_by_branch(found.differences, a)))


def _news_by_branch(differences: Iterable[Difference], a: Mapping[str, Leaf]) -> Iterator[Difference]:
    """The differences, with what only B has once for each branch that A lacks altogether, not once for each leaf."""
    known = {branch for path in a for branch in _branches(path)}
    told = set()
    for difference in differences:
        if difference.kind != "only in B":
            yield difference
            continue
        root = next((branch for branch in _branches(difference.path) if branch not in known), difference.path)
        if root not in told:
            told.add(root)
            yield replace(difference, path=root, b=difference.b if root == difference.path else "…")


def _branches(path: str) -> Iterator[str]:
    """A path's folders from the top, and itself."""
    yield from (path[: m.start()] for m in re.finditer(r"[.\[]", path))
    yield path


def _floor(path: str, leaves: Mapping[str, Leaf]) -> float:
    """Size of a difference that is none, whatever its share of the value."""
    if "log10" in path or "correlations" in path:  # logarithms and cosines: their last digits are those of numbers of size 1
        return LOG_FLOOR
    eigenvalues = re.fullmatch(r"(.*\btop_eigenvalues)\[\d+\]", path)
    largest = leaves.get(f"{eigenvalues[1]}[0]") if eigenvalues else None
    return EIGENVALUE_FLOOR * abs(largest) if isinstance(largest, float) else FLOOR


def _compare_at(path: str, one: Leaf, other: Leaf, tolerance: float, *, known_empty: bool = True, floor: float = FLOOR) -> Outcome:
    if one is None and other is None:
        return Outcome()
    if one is None:
        return Outcome(differences=(Difference(path, "differs" if known_empty else "only in B", None, other),))
    if other is None:
        return Outcome(differences=(Difference(path, "only in A", one),))
    same, relative = _same(one, other, tolerance, floor)
    differences = () if same else (Difference(path, "differs", one, other, relative),)
    return Outcome(1, relative if same and relative is not None else 0.0, differences)


def _said_empty(path: str, leaves: Mapping[str, Leaf]) -> bool:
    """Whether a folder of this path is there, and empty."""
    return any(leaves.get(branch, "") is None for branch in _branches(path))


def _same(a: Leaf, b: Leaf, tolerance: float, floor: float) -> tuple[bool, float | None]:
    """Whether two leaves are the same, and the relative difference of their numbers (of the numbers in them, for texts)."""
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b, None
    if isinstance(a, (int, float)) and isinstance(b, (int, float)):
        relative = relative_difference(a, b, floor)
        return relative <= tolerance, relative
    if isinstance(a, str) and isinstance(b, str):
        if a == b:
            return True, None
        if _NUMBER.sub("#", a) != _NUMBER.sub("#", b):
            return False, None
        pairs = zip(_NUMBER.findall(a), _NUMBER.findall(b), strict=True)
        relative = max(relative_difference(float(x), float(y)) for x, y in pairs)
        return relative <= tolerance, relative
    return False, None


def relative_difference(a: float, b: float, floor: float = FLOOR) -> float:
    """``|a − b|`` over the larger of the two; 0 where they are no farther apart than ``floor``."""
    if a == b or abs(a - b) <= floor:
        return 0.0
    size = max(abs(a), abs(b))
    return abs(a - b) / size if math.isfinite(size) else math.inf


def _compare_lines(a: Sequence[str], b: Sequence[str], tolerance: float) -> Outcome:
    """Line by line where both have as many, else by the blocks that changed."""
    if len(a) == len(b):
        return _compare_block(a, b, 0, tolerance)
    found = []
    for _, start, stop, other_start, other_stop in difflib.SequenceMatcher(None, a, b, autojunk=False).get_opcodes():
        old, new = a[start:stop], b[other_start:other_stop]
        if len(old) == len(new):
            found.append(_compare_block(old, new, start, tolerance))
        else:
            found.append(Outcome(len(old), differences=(Difference(f"lines[{start}]", "differs", " ".join(old), " ".join(new)),)))
    return total(found)


def _compare_block(a: Sequence[str], b: Sequence[str], start: int, tolerance: float) -> Outcome:
    pairs = enumerate(zip(a, b, strict=True), start=start)
    return total(_compare_at(f"lines[{i}]", x, y, tolerance) for i, (x, y) in pairs)


def total(outcomes: Iterable[Outcome]) -> Outcome:
    """All outcomes as one."""
    listed = list(outcomes)
    return Outcome(
        sum(o.compared for o in listed),
        max((o.rounding for o in listed), default=0.0),
        tuple(d for o in listed for d in o.differences),
    )


def within(outcome: Outcome, name: str) -> Outcome:
    """The outcome with its paths put under a file's name."""
    return replace(outcome, differences=tuple(replace(d, path=f"{name}#{d.path}") for d in outcome.differences))


def general(path: str) -> str:
    """A path with its positions left out, so that those of many samples fall together."""
    return re.sub(r"\[\d+\]", "[*]", path)


def _short(value: object, most: int = 120) -> str:
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= most else f"{text[: most - 1]}…"


def grouped(differences: Iterable[Difference]) -> Iterator[tuple[str, list[Difference]]]:
    """Differences by file, in the order of the files."""
    found: dict[str, list[Difference]] = {}
    for difference in differences:
        found.setdefault(difference.path.partition("#")[0], []).append(difference)
    yield from found.items()
