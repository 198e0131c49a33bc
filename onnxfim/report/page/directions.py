"""Worst directions as printed: pictures of images, curves of series, bars of positions and features."""

from __future__ import annotations

import math
from functools import partial

from onnxfim.record.audit import Audit, DirectionPicture, Thumbnail
from onnxfim.record.foreign_text import visible
from onnxfim.report.charts.bars import NamedBar, signed_bars
from onnxfim.report.charts.marks import Chart, Figure, at_both_widths
from onnxfim.report.charts.trace_chart import trace_chart
from onnxfim.report.numbers import count, number, percent, short
from onnxfim.report.page.tables import Picture, class_name
from onnxfim.report.page.view import Captioned, DirectionCard, DirectionSummaryView, PictureView
from onnxfim.report.thumbnails import display_size, png
from onnxfim.report.vocabulary import ROLE_WORDS

MOST_COORDINATES = 12
MOST_FEATURES = 20
_LONGEST = 176  # longest side of a direction's picture, CSS pixels


def direction_card(place: int, d: DirectionPicture, audit: Audit, picture: Picture) -> DirectionCard:
    """The worst direction of one sample, as its kind of input is shown."""
    name = next((s.name for s in audit.samples if s.index == d.index), "")
    shown = (
        ("input", "Input", f"Input of sample {d.index}", d.input),
        ("direction", "Worst direction, grey is zero", f"Signed map of the worst direction of sample {d.index}", d.direction),
        ("moved", f"Moved by ε = {short(d.epsilon)}", f"Input of sample {d.index} moved along its worst direction", d.moved),
    )
    pictures = tuple(
        Captioned(caption, _picture(f"direction-{place}-{key}", thumbnail, alt, picture))
        for key, caption, alt, thumbnail in shown
        if thumbnail is not None
    )
    figures = () if pictures else _figures(place, d, audit)
    return DirectionCard(
        role=ROLE_WORDS.get(d.role, visible(d.role)),
        index=d.index,
        name=visible(name),
        epsilon=short(d.epsilon),
        before=class_name(d.prediction_before, audit),
        after=class_name(d.prediction_after, audit),
        flipped=d.prediction_before != d.prediction_after,
        pictures=pictures,
        figures=figures,
    )


def directions_note(audit: Audit) -> str:
    """What the pictures or charts of the directions show."""
    shown = "The worst direction v is the eigenvector of λ_max; the opposite signs are as bad."
    if any(d.direction is not None for d in audit.directions):
        shown += " In its map grey is zero; brighter raises a value, darker lowers it."
        if audit.data.input_kind == "spectrogram":
            shown += " Shown as spectrograms: time goes to the right, frequency goes up."
    elif any(d.traces for d in audit.directions):
        shown += " Below each channel of the input stands the direction there; the channels with most of it are drawn."
    elif any(d.positions for d in audit.directions):
        shown += " A bar is the part of its squared length that lies at a position."
    else:
        shown += f" The {MOST_COORDINATES} largest entries are drawn."
    return shown


def feature(index: int, audit: Audit) -> str:
    """What a number of the input is called: its name, or its place along each axis."""
    names, shape = audit.data.feature_names, audit.data.shape
    if names is not None and index < len(names):
        return visible(names[index])
    if len(shape) < 2 or not index < math.prod(shape):
        return f"input {index:,}"
    places = []
    for size in reversed(shape):
        index, place = divmod(index, size)
        places.append(str(place))
    return f"input [{', '.join(reversed(places))}]"


def direction_summary(audit: Audit) -> DirectionSummaryView | None:
    """The mean worst direction over the samples by feature, or None where it was not recorded."""
    found = audit.direction_summary
    if found is None or not found.mean:
        return None
    ranked = sorted(range(len(found.mean)), key=lambda i: -found.mean[i])[:MOST_FEATURES]
    rows = [
        NamedBar(feature(i, audit), m := found.mean[i], number(m, digits=2), f"{feature(i, audit)}: {number(m)}") for i in ranked
    ]
    largest = ", ".join(r.tip for r in rows[:5])
    figure = at_both_widths(
        lambda width: signed_bars(
            rows,
            name="features",
            title="Mean size of the worst direction by feature",
            description=f"{count(len(rows), 'feature')} of {len(found.mean):,}, over {count(found.samples, 'sample')}; {largest}.",
            axis="mean of |v| over the samples",
            width=width,
        )
    )
    left = len(found.mean) - len(rows)
    more = f" The {left:,} smallest are not drawn." if left > 0 else ""
    note = (
        f"Each bar is the mean of the entries of the worst directions, without their signs, over {count(found.samples, 'sample')}: "
        "the features by which predictions move with the least change. Entries are per unit of the input, so one of wide range "
        f"(an income in euros) has small ones.{more}"
    )
    return None if figure is None else DirectionSummaryView(figure, note)


def _figures(place: int, d: DirectionPicture, audit: Audit) -> tuple[Figure, ...]:
    if not d.traces:
        draw = _positions if d.positions else _coordinates
        made = [at_both_widths(lambda width: draw(place, d, audit, width))]
    else:
        made = [at_both_widths(partial(_trace, place, d, k)) for k in range(len(d.traces))]
    return tuple(f for f in made if f is not None)


def _trace(place: int, d: DirectionPicture, k: int, width: int) -> Chart | None:
    trace = d.traces[k]
    title = f"Channel {trace.channel} of sample {d.index} and its worst direction"
    return trace_chart(trace, name=f"direction-{place}-{k}", title=title, width=width)


def _picture(name: str, thumbnail: Thumbnail, alt: str, picture: Picture) -> PictureView:
    return PictureView(picture(name, png(thumbnail)), *display_size(thumbnail, _LONGEST), alt)


def _positions(place: int, d: DirectionPicture, audit: Audit, width: int) -> Chart | None:
    """Each position's part of the direction, in the order of the sequence."""
    rows = [
        NamedBar(f"{k:,}: token {p.token:,}", p.share, percent(p.share), f"position {k:,}, token {p.token:,}: {percent(p.share)}")
        for k, p in enumerate(d.positions)
    ]
    first = sorted(range(len(rows)), key=lambda k: -d.positions[k].share)[:5]
    return signed_bars(
        rows,
        name=f"direction-{place}",
        title=f"The worst direction of sample {d.index} by position",
        description=f"{count(len(rows), 'position')}; largest {', '.join(rows[k].tip for k in first)}.",
        axis="share of the squared length",
        width=width,
    )


def _coordinates(place: int, d: DirectionPicture, audit: Audit, width: int) -> Chart | None:
    largest = sorted(d.largest, key=lambda pair: -abs(pair[1]))[:MOST_COORDINATES]
    rows = [NamedBar(feature(i, audit), v, number(v, digits=2), f"{feature(i, audit)}: {number(v)}") for i, v in largest]
    words_ = ", ".join(f"{number(v)} at {feature(i, audit)}" for i, v in largest[:5])
    return signed_bars(
        rows,
        name=f"direction-{place}",
        title=f"Largest coordinates of the worst direction of sample {d.index}",
        description=f"The {count(len(rows), 'coordinate')} with the largest entries; first {words_}.",
        axis="entry of the unit vector v",
        width=width,
    )
