"""The benchmarks in short: each runs to its end, and no figure is far from its bar.

A machine that is busy with other things still passes, because processor time is compared, of both sides in turn; so a
failure means that something became several times slower than it was.
"""

import tempfile

import pytest

from . import archives, downloads, growth, idle, report, requests, trees, uploads
from .plan import Plan, memory
from .servers import certificate

# How far from its bar a figure may be on a machine of which nothing is known.
SLACK = 4


@pytest.fixture(scope="session")
def plan():
    with certificate() as keys:
        yield Plan(False, memory(), tempfile.gettempdir(), keys)


@pytest.mark.parametrize("group", [archives, downloads, idle, requests, trees, uploads], ids=lambda group: group.__name__)
def test_no_figure_is_far_from_its_bar(group, plan):
    rows = list(group.rows(plan))
    print(report.table(rows))
    assert rows
    for row in rows:
        far = row.bar / SLACK if row.at_least else row.bar * SLACK
        assert row.value() >= far if row.at_least else row.value() <= far, report.line(row)


def test_costs_grow_no_faster_than_what_is_done(plan):
    curves = growth.curves(plan)
    assert report.plot(curves).endswith("</svg>\n")
    for name, points in curves.items():
        (small, before), _, (large, after) = points
        assert after / large < SLACK * max(before, 1.0) / small, f"{name}: {points}"
