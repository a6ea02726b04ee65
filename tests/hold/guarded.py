"""An agent that logs all it can, and whose log is searched for secrets when it has ended."""

import json
import os
import subprocess
import urllib.request
from pathlib import Path

from harness.agent import Agent

# Whether everything runs for as long as it takes to be sure, instead of as long as a change can wait for.
LONG = bool(os.environ.get("HOLD_LONG"))
# What is left of a run for people to look at.
REPORT = Path(__file__).resolve().parents[2] / "target" / "hold"


class Guarded(Agent):
    """What `secrets` lists is searched for besides the agent's own; the outcome goes to the run's file."""

    level = "TRACE"
    secrets = ()

    def __exit__(self, *_):
        self.stop()
        self.search()
        # Faster than Python where trees are deep, and able to.
        if not os.environ.get("TESTS_KEEP"):
            subprocess.run(["rm", "-rf", self.volume], check=True)
        super().__exit__()

    def search(self):
        text = self.log.read_text(errors="replace")
        lines = self.leaks() + [line for line in text.splitlines() if any(secret in line for secret in self.secrets)]
        outcome = {
            "agent": os.environ["PYTEST_CURRENT_TEST"],
            "secrets": 2 + len(self.secrets),
            "bytes": len(text),
            "debug": " DEBUG " in text,
            "panics": text.count("panicked"),
            "lines": lines,
        }
        with open(os.environ["HOLD_SEARCHED"], "a") as file:
            file.write(json.dumps(outcome) + "\n")

    def resident(self):
        """Bytes of memory in use, and the most there ever were."""
        status = self.proc_status()
        return tuple(int(status[key].split()[0]) << 10 for key in ("VmRSS", "VmHWM"))

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def metrics(self):
        """The figures of `/metrics` by name with labels; needs `internal`."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.internal}/metrics", timeout=10) as reply:
            lines = reply.read().decode().splitlines()
        pairs = (line.rpartition(" ") for line in lines if not line.startswith("#"))
        return {name.removeprefix("storage_agent_"): float(value) for name, _, value in pairs}


def table(**columns):
    """Prints a line of figures that are a result of the run."""
    print("  " + ", ".join(f"{value} {name.replace('_', ' ')}" for name, value in columns.items()))
