"""Figures that tests measure, and the bars they are held to: one table for all of them.

Host, virtual machine and the helper's own tests each leave files, one a bar, in the folder `$FIGURES`.
"""

import os
import sys
from pathlib import Path

BARS = {
    "H1": "non-test lines: helper <= 1200, common <= 400",
    "H2": "third-party crates linked <= 9",
    "H3": "async runtime, HTTP, TLS, regex, JSON, subscribers: 0",
    "H4": "unsafe blocks <= 3, in one file, each explained",
    "H5": "permitted = effective = bounding = {CAP_SYS_ADMIN}",
    "H6": "systemd-analyze security <= 1.0 own uid, <= 1.4 as uid 0",
    "H7": "system calls allowed <= 60, others kill; none of the forbidden",
    "H8": "all read-only but its state and the two files",
    "H9": "peer's uid from the kernel before the first byte",
    "H10": "frame <= 4 KiB, judged before allocation, no leftovers",
    "H11": "request <= 5 s, tool <= 30 s, <= 8 connections, <= 20/s",
    "H12": "names only",
    "H13": "xfs_quota: root's, empty environment, no shell, <= 64 KiB",
    "H14": "2 x 1,000 concurrent creations: 0 duplicates",
    "H15": "killed at every system call: 0 foreign lines touched",
    "H16": "RSS <= 4 MiB idle; NOFILE 64, NPROC 4, CORE 0",
    "H17": "one line a request, control characters escaped",
    "H18": "fuzzed: frames, both files, the tool's output",
}


def record(bar, figure):
    """Keeps what was measured. A bar may have several figures."""
    assert bar in BARS, bar
    folder = os.environ.get("FIGURES")
    if folder:
        with open(Path(folder) / bar, "a") as file:
            file.write(" ".join(str(figure).split()) + "\n")


def table(folder):
    """The table as text, and the bars that nothing was measured for."""
    rows, missing = [], []
    for bar, demand in BARS.items():
        path = Path(folder) / bar
        found = path.read_text().splitlines() if path.exists() else []
        if not found:
            missing.append(bar)
        rows += [f"{bar if i == 0 else '':4} {demand if i == 0 else '':62} {line}" for i, line in enumerate(found or ["-"])]
    return "\n".join([f"{'bar':4} {'number':62} measured", *rows]), missing


if __name__ == "__main__":
    text, missing = table(os.environ["FIGURES"])
    print(text)
    if missing:
        sys.exit(f"nothing was measured for {', '.join(missing)}")
