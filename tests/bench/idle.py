"""What the agent costs when it does nothing: time to start, memory, idle connections."""

import resource
import socket
import subprocess
import time
from pathlib import Path

from harness.agent import Agent

from .client import connect, exchange, read_head, request
from .measure import Row, status_mib

CONNECTIONS = 5000


def rows(plan):
    starts, idle, crowded = [], [], []
    wanted = CONNECTIONS + 100
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(wanted, resource.getrlimit(resource.RLIMIT_NOFILE)[0]), hard))
    for _ in range(plan.rounds):
        with Agent(place=plan.place) as agent:
            pid = agent.process.pid
            idle.append(status_mib([pid], "VmRSS"))
            data = request("GET", agent.client + "/")
            socks = [connect(agent.client) for _ in range(CONNECTIONS)]
            for sock in socks:
                exchange(sock, data, 200)
            crowded.append(status_mib([pid], "VmRSS"))
            for sock in socks:
                sock.close()
            starts.append(restart(agent))
    yield Row("idle", "start to ready", "", "ms", 100, ours=starts)
    yield Row("idle", "RSS after start", "", "MiB", 16, ours=idle)
    yield Row("idle", f"RSS with {CONNECTIONS:,} idle connections", "", "MiB", 100, ours=crowded)


def restart(agent):
    """Milliseconds from exec to the first reply of both APIs."""
    agent.stop()
    ports = [int(url.rsplit(":", 1)[1]) for url in (agent.client, agent.manager)]
    command = [*agent.identity(), str(Path(agent.folder) / "storage-agent"), "-f", str(agent.folder / "storage-proxy.toml")]
    begin = time.perf_counter()
    with agent.log.open("ab") as log:
        agent.process = subprocess.Popen(command, cwd=agent.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    for port in ports:
        answer(port, begin)
    return (time.perf_counter() - begin) * 1000


def answer(port, begin):
    while time.perf_counter() - begin < 20:
        try:
            with socket.create_connection(("127.0.0.1", port), 1) as sock:
                sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                read_head(sock)
                return
        except OSError:
            time.sleep(0.0005)
    raise RuntimeError("the agent did not start again")
