"""Curves over time: as text in the log of a run, and as a picture for people."""

BARS = " ▁▂▃▄▅▆▇█"
WIDTH, HEIGHT, LEFT, TOP = 900, 220, 70, 30


def text(name, values, unit, columns=100):
    """One line: the curve from zero to its highest value."""
    step = max(len(values) / columns, 1)
    picked = [values[int(index * step)] for index in range(min(columns, len(values)))]
    most = max(picked) or 1
    bars = "".join(BARS[round(value / most * (len(BARS) - 1))] for value in picked)
    return f"  {name:12} {bars} {min(picked):,.0f} to {most:,.0f} {unit}"


def svg(path, title, curves, seconds):
    """`curves` are `(name, unit, values)`, each drawn from zero below the one before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH + LEFT + 20}" height="{TOP + (HEIGHT + 40) * len(curves)}" '
        f'font-family="sans-serif" font-size="12"><rect width="100%" height="100%" fill="white"/>'
        f'<text x="{LEFT}" y="18" font-size="14">{title}</text>'
    ]
    for number, (name, unit, values) in enumerate(curves):
        bottom, most = TOP + (HEIGHT + 40) * number + HEIGHT, max(values) or 1
        points = " ".join(
            f"{LEFT + WIDTH * index / max(len(values) - 1, 1):.1f},{bottom - value / most * (HEIGHT - 20):.1f}"
            for index, value in enumerate(values)
        )
        parts.append(
            f'<line x1="{LEFT}" y1="{bottom}" x2="{LEFT + WIDTH}" y2="{bottom}" stroke="#999"/>'
            f'<text x="{LEFT}" y="{bottom - HEIGHT + 12}">{name} ({unit})</text>'
            f'<text x="{LEFT - 6}" y="{bottom - HEIGHT + 24}" text-anchor="end">{most:,.0f}</text>'
            f'<text x="{LEFT - 6}" y="{bottom}" text-anchor="end">0</text>'
            f'<text x="{LEFT + WIDTH}" y="{bottom + 16}" text-anchor="end">{seconds:.0f} s</text>'
            f'<polyline points="{points}" fill="none" stroke="#1565c0" stroke-width="1.5"/>'
        )
    path.write_text("\n".join(parts) + "</svg>\n")
