"""Runs the measurements in full and writes the report: `python3 -m bench FOLDER [GROUP...]`."""

import sys
import tempfile
from pathlib import Path

from . import archives, downloads, growth, idle, report, requests, transfers, trees, uploads
from .plan import Plan, memory
from .servers import certificate

GROUPS = {
    "downloads": downloads.rows,
    "uploads": uploads.rows,
    "trees": trees.rows,
    "archives": archives.rows,
    "requests": requests.rows,
    "transfers": transfers.rows,
    "idle": idle.rows,
}


def main(folder, *chosen):
    with certificate() as keys:
        plan = Plan(True, memory(), tempfile.gettempdir(), keys)
        rows = []
        print(f"{report.machine()}\n\n{report.table([])}", flush=True)
        for name in chosen or GROUPS:
            for row in GROUPS[name](plan):
                rows.append(row)
                print("| " + " | ".join(report.line(row)) + " |", flush=True)
        curves = {} if chosen else growth.curves(plan)
    report.save(Path(folder), rows, curves)
    print(f"\nwritten to {folder}: bench.md, bench.json, growth.svg")


main(*sys.argv[1:])
