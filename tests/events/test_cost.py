"""What telling managers costs: the latency of `folder/delete` with events and without, measured in pairs."""

import random
import statistics
import time
import uuid

from members import Site

PAIRS = 150
# A server that answers at once adds nothing to a request; what is allowed is what pairs of equal agents differ by.
NOISE = 0.10


def latency(site, vfid):
    began = time.perf_counter()
    site.delete(vfid)
    return time.perf_counter() - began


def test_deleting_takes_as_long_with_events_as_without(events):
    with Site(tables=events) as telling, Site() as silent, Site() as control:
        sites = {"with": telling, "without": silent, "control": control}
        folders = {name: [site.make_folder(uuid.uuid4()) for _ in range(PAIRS + 10)] for name, site in sites.items()}
        taken = {name: [] for name in sites}
        for number in range(PAIRS + 10):
            for name in random.sample(list(sites), 3):
                took = latency(sites[name], folders[name][number])
                if number >= 10:
                    taken[name].append(took)
            # What ends in the background is to end in the background of nobody.
            time.sleep(0.02)
        median = {name: statistics.median(times) * 1000 for name, times in taken.items()}
        differences = {
            name: statistics.median(one - other for one, other in zip(taken[name], taken["without"], strict=True)) * 1000
            for name in ("with", "control")
        }
        print(f"\nfolder/delete, median of {PAIRS}: {median['with']:.2f} ms with events, {median['without']:.2f} ms without")
        print(f"median of paired differences: {differences['with']:+.3f} ms; of two agents without: {differences['control']:+.3f} ms")
        allowed = NOISE * median["without"] + abs(differences["control"])
        assert differences["with"] <= allowed, (differences, allowed)
