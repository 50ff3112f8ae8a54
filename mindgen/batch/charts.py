"""Charts as SVG, drawn for the styles of templates/page.html."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup

_LINE_CHART, _BAR_CHART = (980, 260), (470, 220)  # as large as they are shown on a wide screen
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 18, 12, 30  # margins
_TIME_STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400)


@dataclass(frozen=True, slots=True)
class Line:
    """A name, and a height for each interval of the horizontal axis."""

    name: str
    heights: Sequence[float]


@dataclass(frozen=True, slots=True)
class Bar:
    """From start to end on the horizontal axis; the title is shown where the mouse is."""

    start: float
    end: float
    height: float
    title: str
    is_rest: bool = False


@dataclass(frozen=True, slots=True)
class _Plane:
    """Maps 0 to right and 0 to top, in the data's units, to where they are drawn."""

    size: tuple[int, int]
    right: float
    top: float

    def x(self, value: float) -> float:
        return round(_LEFT + value / self.right * (self.size[0] - _LEFT - _RIGHT), 2)

    def y(self, value: float) -> float:
        return round(self.size[1] - _BOTTOM - value / self.top * (self.size[1] - _TOP - _BOTTOM), 2)


def line_chart(lines: Sequence[Line], width: float, label: str) -> Markup:
    """Steps, as each height holds for an interval.

    Args:
        width: of an interval, in seconds.
        label: what the chart shows, for those who do not see it.
    """
    count = max((len(line.heights) for line in lines), default=0)
    highest = max((height for line in lines for height in line.heights), default=0.0)
    plane = _Plane(_LINE_CHART, max(count * width, width), _round_up(highest))
    parts = [*_axes(plane, _time_ticks(plane.right))]
    for number, line in enumerate(lines):
        points = [f"M{plane.x(0)},{plane.y(line.heights[0] if line.heights else 0)}"]
        for place, height in enumerate(line.heights):
            points.append(f"V{plane.y(height)}H{plane.x((place + 1) * width)}")
        parts.append(Markup('<path class="line series-{}" d="{}"/>').format(number, "".join(points)))
    legend = Markup("").join(
        Markup('<span class="key"><i class="series-{}"></i>{}</span>').format(number, line.name)
        for number, line in enumerate(lines)
    )
    return Markup('<div class="legend">{}</div>{}').format(legend, _figure(plane, parts, label))


def bar_chart(bars: Sequence[Bar], series: int, label: str) -> Markup:
    """
    Args:
        series: which of the colours.
        label: what the chart shows, for those who do not see it.
    """
    right, top = max((bar.end for bar in bars), default=1), max((bar.height for bar in bars), default=0)
    plane = _Plane(_BAR_CHART, right, _round_up(top))
    parts = [*_axes(plane, [(value, short_number(value)) for value in _ticks(right, 6)])]
    for bar in bars:
        kind = f"series-{series}{' rest' if bar.is_rest else ''}"
        width = round(max(plane.x(bar.end) - plane.x(bar.start) - 1, 0.5), 2)
        height = round(plane.y(0) - plane.y(bar.height), 2)
        parts.append(
            Markup('<rect class="bar {}" x="{}" y="{}" width="{}" height="{}"><title>{}</title></rect>').format(
                kind, plane.x(bar.start), plane.y(bar.height), width, height, bar.title
            )
        )
    return _figure(plane, parts, label)


def short_number(value: float) -> str:
    """Like 950, 1.5k or 2M."""
    for size, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"


def _figure(plane: _Plane, parts: Sequence[Markup], label: str) -> Markup:
    return Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        *plane.size, label, Markup("").join(parts)
    )


def _axes(plane: _Plane, ticks: Sequence[tuple[float, str]]) -> Iterator[Markup]:
    """Lines across at round heights, and what stands below.

    Args:
        ticks: where on the horizontal axis stands what.
    """
    width, height = plane.size
    for value in _ticks(plane.top, 5):
        yield Markup('<line class="grid" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(
            _LEFT, width - _RIGHT, plane.y(value), plane.y(value)
        )
        yield Markup('<text x="{}" y="{}" text-anchor="end">{}</text>').format(
            _LEFT - 8, plane.y(value) + 4, short_number(value)
        )
    for value, text in ticks:
        yield Markup('<text x="{}" y="{}" text-anchor="middle">{}</text>').format(
            plane.x(value), height - _BOTTOM + 18, text
        )


def _ticks(end: float, most: int) -> list[float]:
    """Round numbers from 0 to the end."""
    step = _round_step(end / most)
    return [step * place for place in range(int(end / step + 1e-9) + 1)]


def _time_ticks(end: float) -> list[tuple[float, str]]:
    """Seconds, minutes or hours, in round numbers of them."""
    size, unit = (3600, "h") if end > 4 * 3600 else (60, "min") if end > 120 else (1, "s")
    days = math.ceil(end / 10 / _TIME_STEPS[-1]) * _TIME_STEPS[-1]
    step = next((step for step in _TIME_STEPS if step >= max(end / 10, size)), days)
    return [(value, f"{value // size} {unit}" if value else "0") for value in range(0, int(end) + 1, step)]


def _round_step(least: float) -> float:
    """The next of 1, 2, 2.5, 5, 10, 20..., of whole numbers only."""
    if least <= 1:
        return 1.0
    size = 10.0 ** math.floor(math.log10(least))
    steps = (1, 2, 2.5, 5, 10) if size >= 10 else (1, 2, 5, 10)
    return next(step * size for step in steps if step * size >= least * (1 - 1e-9))


def _round_up(highest: float) -> float:
    """The next multiple of the ticks' step."""
    step = _round_step(highest / 5)
    return max(step, math.ceil(highest / step - 1e-9) * step)
