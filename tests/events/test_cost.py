"""What telling managers costs: the latency of `folder/delete` with events and without, measured in pairs."""

import random
import statistics
import time
import uuid

from harness.site import Site
from harness.valkey import Valkey

PAIRS, WARM_UP, ROUNDS = 120, 10, 3
# Beyond what two equal agents differ by at the same time.
ALLOWED = 0.10


def latency(site, vfid):
    began = time.perf_counter()
    site.delete(vfid)
    return time.perf_counter() - began


def measured(sites):
    """The latencies of each site, in milliseconds: each of them deletes one folder in every round, in random order."""
    folders = {name: [site.make_folder(uuid.uuid4()) for _ in range(PAIRS + WARM_UP)] for name, site in sites.items()}
    taken = {name: [] for name in sites}
    for number in range(PAIRS + WARM_UP):
        for name in random.sample(list(sites), len(sites)):
            took = latency(sites[name], folders[name][number]) * 1000
            if number >= WARM_UP:
                taken[name].append(took)
            # A purge is to end before the next one is measured.
            time.sleep(0.01)
    return taken


def paired(taken, one, other):
    return statistics.median(a - b for a, b in zip(taken[one], taken[other], strict=True))


def test_deleting_takes_as_long_with_events_as_without():
    # A site's server writes to the disk of another machine.
    with Valkey(password="not-a-secret", settings=["appendonly no"]) as valkey:
        table = f'[events]\nvalkey-addr = "127.0.0.1:{valkey.port}"\npassword = "{valkey.password}"\n'
        for _ in range(ROUNDS):
            with Site(tables=table) as telling, Site() as silent, Site() as control:
                taken = measured({"with": telling, "without": silent, "control": control})
                assert telling.agent.metric("events_published_total") > PAIRS / 2
            usual = statistics.median(taken["without"])
            cost, noise = paired(taken, "with", "without"), paired(taken, "control", "without")
            print(f"\nfolder/delete, median of {PAIRS}: {statistics.median(taken['with']):.2f} ms with events, {usual:.2f} ms without")
            print(f"median of paired differences: {cost:+.3f} ms; of two agents without: {noise:+.3f} ms")
            allowed = ALLOWED * usual + abs(noise)
            if cost <= allowed:
                return
    raise AssertionError(f"{cost:.3f} ms more than without events; allowed: {allowed:.3f} ms")
