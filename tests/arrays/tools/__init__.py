"""Imitations of the vendors' command line tools that do the real work on a directory and print the documented formats.

`install` puts them into a folder of the test's. What they shall do is told by the file `tools.json` beside them, read at
each start, because the agent runs tools with an empty environment: `exports` (NFS path to directory), `licence`,
`rapidfile` (1 or 2), `noise`, `glued`, `fail` and `hang` (lists of tool or subcommand names), `log`.
"""

import json
import os
from pathlib import Path

RAPIDFILE = ("pls", "pdu", "pcp", "pcopy", "prm")
# What version 1 and version 2 of the RapidFile Toolkit do not have.
MISSING = {1: ("pcopy",), 2: ("pcp",)}
# Not the test's own interpreter: the agent's user may be unable to reach that.
INTERPRETER = "#!/usr/bin/python3 -I\n"


class Tools:
    """The installed tools."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self.folder.mkdir(exist_ok=True)
        self.folder.chmod(0o755)
        self.log = self.folder / "calls.log"
        self.log.touch()
        self.log.chmod(0o666)
        self.settings = {}

    def install(self, *names):
        for name in names:
            source = "xcp" if name == "xcp" else "rapidfile"
            target = self.folder / name
            target.write_text(INTERPRETER + (Path(__file__).parent / f"{source}.py").read_text())
            target.chmod(0o755)

    def install_xcp(self, **settings):
        self.install("xcp")
        self.set(licence="ACTIVE", **settings)
        return self

    def install_rapidfile(self, version, **settings):
        self.install(*(name for name in RAPIDFILE if name not in MISSING[version]))
        self.set(rapidfile=version, **settings)
        return self

    def set(self, **settings):
        """Changes settings; takes effect at the tools' next start."""
        self.settings |= settings
        new = self.folder / "tools.json.new"
        new.write_text(json.dumps({"log": str(self.log), **self.settings}))
        os.replace(new, self.folder / "tools.json")

    def calls(self):
        """The argument lists of all calls so far, the tool's name first."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]
