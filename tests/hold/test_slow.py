"""Thousands of peers that send next to nothing, and thousands more than there may be: others do not notice."""

import json
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

from bench.client import request
from harness.folder import Folder
from hold import latency
from hold.dribble import PERIOD
from hold.guarded import LONG, Guarded, table
from hold.http import request as ask

UPLOADS, BODIES, HEADS = 2500, 1250, 1250
REQUESTS = 20_000 if LONG else 3000
MOST_MEMORY = 200 << 20
HEADER_TIMEOUT = 10
CROWD, PLACES = 10_000, 500
# Longer than any of the pauses; what is measured is that it does no harm, not that it is cut off.
PATIENT = '[limits]\nuploads-per-vfolder = 100000\nbody-idle-timeout = "10m"\n'


def port(url):
    return urlsplit(url).port


class Dribblers:
    """Uploads, bodies of managers, and heads, all of which never come to their end."""

    def __init__(self, agent):
        folder = Folder(agent)
        plan = []
        for number in range(UPLOADS):
            url = folder.upload_url(f"slow-{number}", 1 << 20)
            head = request("PATCH", url, Content_Length=1 << 20, Upload_Offset=0, Content_Type="application/offset+octet-stream")
            plan.append((port(url), head.decode()))
        auth = {"X_BackendAI_Storage_Auth_Token": agent.manager_secret, "Content_Type": "application/json"}
        body = request("POST", agent.manager + "/folder/file/list", Content_Length=1 << 20, **auth).decode()
        plan += [(port(agent.manager), body)] * BODIES + [(port(agent.client), "GET / HTTP/1.1\r\nX-Slow: ")] * HEADS
        self.plan = plan

    def __enter__(self):
        script = Path(__file__).with_name("dribble.py")
        self.process = subprocess.Popen([sys.executable, script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.process.stdin.write(json.dumps(self.plan) + "\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "open\n"
        return self

    def __exit__(self, *_):
        self.told = json.loads(self.process.communicate()[0] or "{}")


def test_5000_slow_peers_cost_others_nothing(capsys):
    with Guarded(tables=PATIENT) as agent, Guarded(tables=PATIENT) as twin:
        with Dribblers(agent) as dribblers:
            # Until those that are too slow with their heads have been cut off once and have come again.
            time.sleep(HEADER_TIMEOUT + PERIOD + 1)
            beside, alone = latency.compare(agent, twin, REQUESTS)
            memory, _ = agent.resident()
            descriptors = agent.descriptors()
        assert agent.status("/readyz") == 200
    with capsys.disabled():
        print()
        table(
            slow_connections=len(dribblers.plan),
            bytes_they_sent=dribblers.told["sent"],
            that_were_cut_off_and_came_again=dribblers.told["cut"],
            MiB_of_memory=memory >> 20,
            descriptors=descriptors,
        )
        print(f"  p99 of others: {latency.told(beside, alone)}")
    assert descriptors > len(dribblers.plan), "they were not all there"
    assert dribblers.told["sent"] > len(dribblers.plan) and dribblers.told["cut"] >= HEADS / 2
    assert memory < MOST_MEMORY
    assert beside <= alone * latency.BOUND


def test_10000_connections_beyond_the_limit_are_refused_politely(capsys):
    with Guarded(tables=f"[limits]\nconnections = {PLACES}\n") as agent:
        held = [socket.create_connection(("127.0.0.1", port(agent.client))) for _ in range(PLACES - 1)]
        with socket.create_connection(("127.0.0.1", port(agent.client))) as kept:
            script = Path(__file__).with_name("crowd.py")
            command = [sys.executable, script, str(port(agent.client)), str(CROWD), "60"]
            told = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
            # Whoever is in is served, and so is the manager, whose connections are others.
            kept.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert kept.recv(64).startswith(b"HTTP/1.1 200")
            assert agent.status("/readyz") == 200
        memory, _ = agent.resident()
        for sock in held:
            sock.close()
        deadline = 50
        while (status := ask("GET", agent.client + "/")[0]) != 200 and deadline:
            deadline -= 1
        assert status == 200, "places that became free can be taken"
    with capsys.disabled():
        print()
        table(connections_beyond_the_limit=CROWD, **told, MiB_of_memory=memory >> 20)
    assert told.get("refused with 503 and Retry-After", 0) >= CROWD * 0.99
    assert told.get("served", 0) == told["left waiting"] == 0
