"""All kinds of clients at once for a long time: no error, and no more memory or descriptors at the end than in between."""

import statistics
import time
from collections import Counter

from hold import plot
from hold.guarded import LONG, REPORT, Guarded, table
from hold.mounts import wait_for
from hold.soak import CLIENTS

SECONDS = 1800 if LONG else 120
# The quarter that the last one is compared with. The first minute goes to threads and their heaps that did not exist before.
SETTLED = 1 if LONG else 2
# What a heap may grow by while its pages find their places, and what may be open at one moment and not at another.
SLACK_MIB, SLACK_DESCRIPTORS = 8, 3


def test_soak(capsys):
    with Guarded() as agent:
        wait_for("agent at rest", 10, lambda: agent.descriptors() < 30)
        before = agent.descriptors()
        began = time.monotonic()
        clients = [kind(agent, began + SECONDS) for kind in CLIENTS]
        for client in clients:
            client.thread.start()
        memory, descriptors = [], []
        while any(client.thread.is_alive() for client in clients):
            memory.append(agent.resident()[0] / (1 << 20))
            descriptors.append(agent.descriptors())
            time.sleep(0.5)
        took = time.monotonic() - began
        for client in clients:
            client.thread.join()
        # Connections that are kept for another request are closed after a while; all else is closed at once.
        wait_for("as few descriptors as before", 90, lambda: agent.descriptors() <= before + SLACK_DESCRIPTORS)
        tasks = Counter(task["state"] for task in agent.call("GET", "/tasks")["tasks"])
        text = agent.log.read_text(errors="replace")
    done = Counter()
    for client in clients:
        done[type(client).__name__] += client.done
    errors = {type(client).__name__: client.error for client in clients if client.error}
    quarter = len(memory) // 4
    middle, end = (statistics.median(memory[part * quarter : (part + 1) * quarter]) for part in (SETTLED, 3))
    open_middle, open_end = (statistics.median(descriptors[part * quarter : (part + 1) * quarter]) for part in (SETTLED, 3))
    curves = [("memory", "MiB", memory), ("descriptors", "open", descriptors)]
    plot.svg(REPORT / "soak.svg", f"{took:.0f} s of mixed clients", curves, took)
    with capsys.disabled():
        print()
        table(seconds=round(took), errors=len(errors), **{f"rounds_of_{name}": count for name, count in done.items()})
        for name, unit, values in curves:
            print(plot.text(name, values, unit))
        print(f"  medians of quarter {SETTLED + 1} and the last one: {middle:.1f} and {end:.1f} MiB, {open_middle:.0f} and {open_end:.0f} descriptors")
        print(f"  the picture is in {REPORT / 'soak.svg'}")
    assert errors == {}
    assert min(done.values()) > SECONDS // 60
    assert set(tasks) <= {"done"}, tasks
    assert " ERROR " not in text
    assert end <= middle * 1.05 + SLACK_MIB
    assert open_end <= open_middle * 1.25 + SLACK_DESCRIPTORS
