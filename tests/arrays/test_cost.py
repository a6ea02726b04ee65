"""What things cost the array, in calls, counted by the simulators and printed."""

import math
import os
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from arrays.sites import NETAPP_NEW, WEKA, Rig, Scope, eventually

GIB = 1 << 30
MANY = 1000
BURST = 200


def report(capsys, text):
    with capsys.disabled():
        print(f"\n  {text}")


def many_scopes(rig):
    """A thousand scopes that were there before us."""
    scopes = [Scope(rig) for _ in range(MANY)]
    for scope in scopes:
        if rig.site is NETAPP_NEW:
            rig.array.do("qtree", name=scope.path.name)
        else:
            scope.path.mkdir()
            rig.array.do("quota", name=scope.path.name, limit=GIB)
    if rig.site is NETAPP_NEW:
        rig.array.do("rule", name=scopes[0].path.name, limit=GIB)
        rig.array.do("quota", state="on")
    return scopes


def describe_all(scopes):
    """Describes them one after another; how long it took, and the longest time from one to the next."""
    started = last = time.monotonic()
    longest = 0
    for scope in scopes:
        assert scope.describe()["used_bytes"] == 4096
        now = time.monotonic()
        longest, last = max(longest, now - last), now
    return last - started, longest


@pytest.mark.parametrize("site, page", [(NETAPP_NEW, 250), (NETAPP_NEW, 1000), (WEKA, 100), (WEKA, 500)])
def test_describing_a_thousand_scopes(shared, capsys, site, page):
    with Rig(site, shared, {"page_cap": page}) as rig:
        scopes = many_scopes(rig)
        # What is asked once for the life of the process is not the describing's cost.
        rig.call("GET", "/folder/fs-usage")
        single = []
        for scope in scopes[:5]:
            time.sleep(1.1)
            rig.array.calls(reset=True)
            assert scope.describe()["used_bytes"] == 4096
            single.append(rig.array.calls()["total"])
        for _ in range(5):
            time.sleep(1.1)
            rig.array.calls(reset=True)
            seconds, pause = describe_all(scopes)
            sweep = rig.array.calls()["total"]
            # With a pause in the middle, as on a machine that is too busy, it was no sweep.
            if pause < 0.8:
                break
        bound = math.ceil(MANY / page) + 1
        report(
            capsys,
            f"{site}, pages of {page}: {MANY} scopes described one after another cost {sweep} array calls (bound {bound}) "
            f"in {seconds:.1f} s; described singly {max(single)} each",
        )
        assert sweep <= bound
        assert single == [1] * 5


def test_a_burst_of_scopes_resizes_quotas_a_few_times(shared, capsys):
    with Rig(NETAPP_NEW, shared) as rig:
        scopes = [Scope(rig) for _ in range(BURST)]
        rig.array.calls(reset=True)
        started = time.monotonic()
        with ThreadPoolExecutor(BURST) as pool:
            list(pool.map(lambda scope: scope.create(GIB), scopes))
        seconds = time.monotonic() - started
        state = rig.array.do("state")
        calls = rig.array.calls()
        resizes = state["resizes"] + state["switches"]["on"] + state["switches"]["off"]
        report(
            capsys,
            f"{BURST} scopes made at once in {seconds:.1f} s: {state['resizes']} resizes and {state['switches']} switches of "
            f"quotas (bound 10 in all), {calls['total']} array calls, at most {calls['most_at_once']} at once, "
            f"{calls['connections']} connections",
        )
        assert resizes <= 10
        assert calls["most_at_once"] <= 8
        names = {scope.path.name for scope in scopes}
        assert {name: limit for name, limit in state["rules"].items() if name in names} == dict.fromkeys(names, GIB)
        assert eventually(lambda: set(rig.array.do("state")["enforced"]) >= names)
        assert all(os.path.isdir(scope.path) for scope in scopes)


def test_a_scope_costs_few_calls(shared, capsys):
    for site in (NETAPP_NEW, WEKA):
        with Rig(site, shared) as rig:
            Scope(rig).create(GIB)
            costs = {}
            scope = Scope(rig)
            steps = {
                "create": lambda: scope.create(GIB),
                "update": lambda: scope.update(2 * GIB),
                "unset": scope.unset,
                "remove": scope.remove,
            }
            for name, step in steps.items():
                rig.array.calls(reset=True)
                step()
                routes = rig.array.calls()["routes"]
                # How often a job is looked at depends on how long it takes.
                costs[name] = sum(count for route, count in routes.items() if "jobs" not in route)
            report(capsys, f"{site}: array calls besides looks at jobs: {costs}")
            assert max(costs.values()) <= 12
