"""How costs grow: three sizes of each thing, for the plot."""

from harness.agent import Agent
from harness.folder import Folder

from .client import connect, exchange, request
from .downloads import write
from .measure import MIB, sampled
from .trees import cloned, populate

TREES = (1000, 10_000, 50_000)
CALLS = 100
FILES = (16 * MIB, 128 * MIB, 1024 * MIB)


def curves(plan):
    """Names of curves with their points: size, and milliseconds of processor time."""
    scale = 1 if plan.long else 20
    with Agent(place=plan.place, extra="scandir-limit = 0") as agent:
        folder = Folder(agent)
        pid = [agent.process.pid]
        cost = lambda action: min(sampled(pid, lambda: (action(), 1)[1]).cpu for _ in range(3)) * 1000
        lists, usages, clones, scopes, downloads = [], [], [], [], []
        for count in (size // scale for size in TREES):
            flat = folder.path / f"flat-{count}"
            flat.mkdir()
            for number in range(count):
                (flat / f"{number}").touch()
            lists.append((count, cost(lambda name=flat.name: folder.call("POST", "/folder/file/list", relpath=name))))
            tree = Folder(agent)
            populate(tree.path / "tree", count, [64])
            usages.append((count, cost(tree.usage)))
            clones.append((count, cost(lambda tree=tree: copy(tree))))
            scopes.append((count, cost(lambda tree=tree: [describe(tree) for _ in range(CALLS)])))
        for size in (size // scale for size in FILES):
            write(folder.path / f"{size}", size)
            url = folder.download_url(f"{size}")
            downloads.append((size // 1024, cost(lambda url=url: download(url))))
    return {
        "list, entries": lists,
        "usage, files": usages,
        "clone, files": clones,
        f"{CALLS} looks at a quota scope, files in it": scopes,
        "download, KiB": downloads,
    }


def copy(tree):
    target = Folder(tree.agent)
    target.path.rmdir()
    cloned(tree, target)


def describe(tree):
    tree.agent.call("GET", "/quota-scope", volume=tree.volume, qsid=tree.scope)


def download(url):
    with connect(url) as sock:
        exchange(sock, request("GET", url), 200)
