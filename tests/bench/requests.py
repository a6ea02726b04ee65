"""Short requests of a manager: listings and the list of volumes, per second of one core."""

import json

from harness.agent import Agent
from harness.folder import Folder

from .client import many, request
from .measure import Row, figures, in_turn, sampled

CONNECTIONS = 8
# Requests per second of one worker of the reference proxy, version 26.9, on such a machine.
REFERENCE = {"POST folder/file/list of 1,000 entries": 8, "GET /volumes": 2200}


def rows(plan):
    with Agent(place=plan.place, extra="scandir-limit = 0") as agent:
        folder = Folder(agent)
        auth = {"X_BackendAI_Storage_Auth_Token": agent.manager_secret}
        for entries in (1000, 10_000):
            place = folder.path / f"{entries}"
            place.mkdir()
            for number in range(entries):
                (place / f"file-{number:05}.dat").touch()
            body = json.dumps({"volume": "local", "vfid": folder.vfid, "relpath": f"{entries}"}).encode()
            url = agent.manager + "/folder/file/list"
            data = request("POST", url, body, Content_Type="application/json", **auth)
            count = max(plan.requests * 10 // entries, 20)
            yield rate(plan, agent, f"POST folder/file/list of {entries:,} entries", data, url, count)
        url = agent.manager + "/volumes"
        yield rate(plan, agent, "GET /volumes", request("GET", url, **auth), url, plan.requests)


def rate(plan, agent, name, data, url, count):
    (samples,) = in_turn(plan.rounds, lambda: sampled([agent.process.pid], lambda: many(data, url, CONNECTIONS, count)))
    rates = [1 / cpu for cpu in figures(samples, "cpu_per_unit")]
    return Row("requests", f"{name}, per second of one core", "", "1/s", 10 * REFERENCE.get(name, 0.8), at_least=True,
               ours=rates)
