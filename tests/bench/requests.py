"""Short requests of a manager, per second of one core: listings and the list of volumes, beside the reference's."""

import json

from harness.agent import Agent
from harness.folder import Folder

from . import reference
from .client import many, request
from .measure import Row, figures, in_turn, sampled

CONNECTIONS = 8
# Requests per second of one worker of the reference, version 26.9, where it is not measured. A listing's costs grow with
# its length.
RECORDED = {
    "POST folder/file/list of 1,000 entries": 8,
    "POST folder/file/list of 10,000 entries": 0.8,
    "GET /volumes": 2200,
}


def rows(plan):
    with Agent(place=plan.place, extra="scandir-limit = 0") as agent, reference.beside(plan, agent) as other:
        folder = Folder(agent)
        auth = {"X_BackendAI_Storage_Auth_Token": agent.manager_secret}
        for entries in (1000, 10_000):
            place = folder.path / f"{entries}"
            place.mkdir()
            for number in range(entries):
                (place / f"file-{number:05}.dat").touch()
            for server in filter(None, (agent, other)):
                listed = server.call("POST", "/folder/file/list", volume="local", vfid=folder.vfid, relpath=place.name)
                if len(listed["items"]) != entries:
                    raise RuntimeError(f"a server lists {len(listed['items'])} of {entries} entries")
            body = json.dumps({"volume": "local", "vfid": folder.vfid, "relpath": f"{entries}"}).encode()
            data = request("POST", agent.manager + "/folder/file/list", body, Content_Type="application/json", **auth)
            count = max(plan.requests * 10 // entries, 20)
            yield rate(plan, agent, other, f"POST folder/file/list of {entries:,} entries", data, count)
        yield rate(plan, agent, other, "GET /volumes", request("GET", agent.manager + "/volumes", **auth), plan.requests)


def rate(plan, agent, other, name, data, count):
    """Of the reference, all processes count: each line of its log goes through two."""

    def side(server, pids, count):
        return lambda: sampled(pids, lambda: many(data, server.manager, CONNECTIONS, count))

    ours = side(agent, [agent.process.pid], count)
    if other:
        # It takes so much longer that fewer requests will do.
        mine, theirs = in_turn(plan.rounds, ours, side(other, other.pids(), max(count // 4, CONNECTIONS)))
        anchor, reached = "the reference, one worker", rates(theirs)
    else:
        (mine,) = in_turn(plan.rounds, ours)
        anchor, reached = "the reference, as once recorded", [RECORDED[name]] * plan.rounds
    return Row("requests", f"{name}, per second of one core", anchor, "1/s", 10, at_least=True, ours=rates(mine),
               other=reached)


def rates(samples):
    return [1 / cpu for cpu in figures(samples, "cpu_per_unit")]
