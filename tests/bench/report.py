"""The report: a table for people, JSON for programs, a plot of how costs grow."""

import json
import os
import platform
from pathlib import Path
from xml.sax.saxutils import escape

WIDTH, HEIGHT, MARGIN = 360, 260, 48


def machine():
    """What the figures were measured on."""
    model = next(
        (line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")),
        platform.machine(),
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    return f"{os.cpu_count()} cores of {model}, {memory:.0f} GiB of memory, Linux {platform.release()}"


def number(value):
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if value < 0.01 else f"{value:.2f}"


def line(row):
    low, high = row.spread()
    unit = "" if row.anchor else f" {row.unit}"
    value = f"{number(row.value())}{unit} ({number(low)} - {number(high)})"
    bar = f"{'≥' if row.at_least else '≤'} {number(row.bar)}{unit}"
    return [row.group, row.name, f"{row.anchor or '-'}", value, bar, "yes" if row.met() else "no"]


HEAD = ["", "what", "beside", "ratio or figure (range)", "bar", "met"]


def table(rows):
    """Markdown."""
    lines = [HEAD, ["---"] * len(HEAD), *(line(row) for row in rows)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def save(folder, rows, curves):
    folder.mkdir(parents=True, exist_ok=True)
    report = {"machine": machine(), "rows": [row.as_json() for row in rows], "growth": curves}
    (folder / "bench.json").write_text(json.dumps(report, indent=2) + "\n")
    (folder / "bench.md").write_text(f"Measured on {machine()}.\n\n{table(rows)}\n")
    (folder / "growth.svg").write_text(plot(curves))


def plot(curves):
    """One chart for each curve, both axes from zero, so that linear growth is a straight line through the corner."""
    charts = "".join(chart(name, points, index) for index, (name, points) in enumerate(curves.items()))
    width = WIDTH * len(curves)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{HEIGHT}" font-family="sans-serif" font-size="12">'
        f'<rect width="100%" height="100%" fill="white"/>{charts}</svg>\n'
    )


def chart(name, points, index):
    left, right, top, bottom = MARGIN, WIDTH - 16, 28, HEIGHT - MARGIN
    most_x, most_y = max(x for x, _ in points), max(y for _, y in points) or 1
    place = lambda x, y: (left + (right - left) * x / most_x, bottom - (bottom - top) * y / most_y)
    dots = [place(x, y) for x, y in [(0, 0), *points]]
    line_ = " ".join(f"{x:.1f},{y:.1f}" for x, y in dots)
    marks = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="#1b6ca8"/>' for x, y in dots[1:])
    words = "".join(
        f'<text x="{place(x, 0)[0]:.1f}" y="{bottom + 16}" text-anchor="end">{x:,}</text>' for x, _ in points[1:]
    )
    return (
        f'<g transform="translate({WIDTH * index},0)"><text x="{left}" y="16">{escape(name)}: ms of CPU</text>'
        f'<path d="M{left},{top}V{bottom}H{right}" fill="none" stroke="#888"/>'
        f'<polyline points="{line_}" fill="none" stroke="#1b6ca8" stroke-width="2"/>{marks}{words}'
        f'<text x="{left - 4}" y="{top + 8}" text-anchor="end">{number(most_y)}</text></g>'
    )
