"""A download and an upload beside the reference; nothing where it does not run."""

from harness.agent import Agent
from harness.folder import Folder

from . import reference
from .client import connect, exchange, request, source
from .downloads import write
from .measure import GIB, MIB, Row, figures, in_turn, sampled
from .uploads import PATCH, ours_once


def rows(plan):
    # Files come from a file system with a page cache, and go to where no disk is measured.
    yield from beside(plan, plan.disk, f"CPU per GiB, download of {plan.large // MIB} MiB", downloading)
    yield from beside(plan, plan.place, "CPU per GiB, upload in PATCHes of 16 MiB", uploading)


def beside(plan, place, name, kind):
    with Agent(place=place) as agent, reference.beside(plan, agent) as other:
        if other:
            sides = [(Folder(agent), [agent.process.pid]), (Folder(other), other.pids())]
            runs = [lambda pids=pids, action=kind(folder, plan): sampled(pids, action) for folder, pids in sides]
            mine, theirs = in_turn(plan.rounds, *runs)
            yield Row("transfers", name, "the reference, one worker", "s/GiB", 1.0, ours=figures(mine, "cpu_per_unit"),
                      other=figures(theirs, "cpu_per_unit"))


def downloading(folder, plan):
    write(folder.path / "large", plan.large)
    url = folder.download_url("large")

    def action():
        with connect(url) as sock:
            return sum(exchange(sock, request("GET", url), 200) for _ in range(plan.repeat)) / GIB

    return action


def uploading(folder, plan):
    fd = source(PATCH)
    return lambda: ours_once(folder, plan, fd)
