"""Downloads: large files from the page cache, ranges, small files, TLS, and what a cold file costs the others."""

import os
import random
import statistics
import threading
import time

from harness.agent import Agent
from harness.folder import Folder

from .client import connect, exchange, insecure, many, request
from .measure import GIB, MIB, Row, figures, in_turn, sampled
from .servers import Nginx

RANGE = 4 * MIB
SMALL = {"4 KiB": 4096, "64 KiB": 65536}
CONNECTIONS = 64


def rows(plan):
    with Agent(place=plan.disk) as agent, Nginx(plan.disk, agent.volume, plan.certificate) as nginx:
        files = Files(agent, nginx, plan)
        yield from large(plan, files, "download")
        yield from ranges(plan, files)
        yield from small(plan, files)
    with (
        Agent(place=plan.disk, tls=plan.certificate) as agent,
        Nginx(plan.disk, agent.volume, plan.certificate) as nginx,
    ):
        yield from large(plan, Files(agent, nginx, plan, tls=True), "download over TLS")
    yield from cold(plan)


class Files:
    """The same files at both servers."""

    def __init__(self, agent, nginx, plan, tls=False):
        # nginx is another user.
        agent.folder.chmod(0o711)
        self.folder = Folder(agent)
        self.sides = {"agent": [agent.process.pid], "nginx": nginx.pids()[1:]}
        self.context = insecure() if tls else None
        self.size = plan.large
        server = nginx.tls_url if tls else nginx.url
        self.nginx, self.contained = (
            f"{server}{location}/{self.folder.path.relative_to(agent.volume)}" for location in ("", "/contained")
        )
        write(self.folder.path / "large", self.size)
        for name, size in SMALL.items():
            write(self.folder.path / name.replace(" ", ""), size)
        # A token is good for all requests, as it is for a browser that asks for many ranges.
        self.urls = {
            name: {
                "agent": self.folder.download_url(name),
                "nginx": f"{self.nginx}/{name}",
                "contained": f"{self.contained}/{name}",
            }
            for name in ("large", *(name.replace(" ", "") for name in SMALL))
        }


def write(path, size):
    block = os.urandom(MIB)
    with path.open("wb") as file:
        for at in range(0, size, MIB):
            file.write(block[: min(MIB, size - at)])
    path.chmod(0o644)


def large(plan, files, group):
    def side(name):
        url = files.urls["large"][name]

        def run():
            with connect(url, files.context) as sock:
                data = request("GET", url)
                bytes_ = sum(exchange(sock, data, 200) for _ in range(plan.repeat))
            return bytes_ / GIB

        return lambda: sampled(files.sides[name], run)

    ours, other = in_turn(plan.rounds, side("agent"), side("nginx"))
    yield Row(group, f"CPU per GiB, file of {files.size // MIB} MiB", "nginx", "s/GiB",
              1.1 if files.context else 0.9, ours=figures(ours, "cpu_per_unit"), other=figures(other, "cpu_per_unit"))
    if not files.context:
        yield Row(group, "throughput, one connection", "nginx", "GiB/s", 1.0, at_least=True,
                  ours=[1 / wall for wall in figures(ours, "wall_per_unit")],
                  other=[1 / wall for wall in figures(other, "wall_per_unit")])


def ranges(plan, files):
    starts = [random.Random(7).randrange(files.size - RANGE) for _ in range(plan.ranges)]

    def side(name):
        url = files.urls["large"][name]

        def run():
            with connect(url) as sock:
                for start in starts:
                    exchange(sock, request("GET", url, Range=f"bytes={start}-{start + RANGE - 1}"), 206)
            return len(starts) * RANGE / GIB

        return lambda: sampled(files.sides[name], run)

    ours, other = in_turn(plan.rounds, side("agent"), side("nginx"))
    yield Row("download", "CPU per GiB, random ranges of 4 MiB", "nginx", "s/GiB", 0.9,
              ours=figures(ours, "cpu_per_unit"), other=figures(other, "cpu_per_unit"))


def small(plan, files):
    """Beside nginx as it is, and beside nginx that makes sure, as the agent does, that no link leads out."""
    for shown in SMALL:
        name = shown.replace(" ", "")

        def side(server, urls=files.urls[name]):
            url, pids = urls[server], files.sides["agent" if server == "agent" else "nginx"]
            return lambda: sampled(pids, lambda: many(request("GET", url), url, CONNECTIONS, plan.requests))

        for server, anchor in (("nginx", "nginx"), ("contained", "nginx, disable_symlinks on")):
            ours, other = in_turn(plan.rounds, side("agent"), side(server))
            yield Row("download", f"CPU per request, {shown}, {CONNECTIONS} connections", anchor, "s", 1.1,
                      ours=figures(ours, "cpu_per_unit"), other=figures(other, "cpu_per_unit"))


def cold(plan):
    """While a file comes from the disk, others must not wait for it."""
    with Agent(place=plan.disk) as agent:
        folder = Folder(agent)
        path = folder.path / "cold"
        write(path, plan.cold)
        with path.open("rb") as file:
            os.fsync(file.fileno())
        url = folder.download_url("cold")
        medians = []
        for _ in range(plan.rounds):
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            medians.append(latency_beside(url, agent.client))
        yield Row("download", f"median latency of others beside a cold read of {plan.cold // MIB} MiB", "", "ms", 1.0,
                  ours=medians)


def latency_beside(url, other):
    def download():
        with connect(url) as sock:
            exchange(sock, request("GET", url), 200)

    reader = threading.Thread(target=download)
    times = []
    with connect(other) as sock:
        data = request("GET", other + "/")
        exchange(sock, data, 200)
        reader.start()
        while reader.is_alive():
            begin = time.perf_counter()
            exchange(sock, data, 200)
            times.append((time.perf_counter() - begin) * 1000)
            time.sleep(0.001)
    reader.join()
    return statistics.median(times)
