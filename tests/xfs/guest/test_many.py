"""What quotas cost with few and many scopes, against the reference proxy's way, and 10,000 scopes made at once.

All figures are ratios of times on the same machine. The reference's way is what it runs: names in the two files,
`project -s` and `limit` for a new scope and for each change of a limit, a report of all projects to describe one.
"""

import http.client
import json
import statistics
import threading
import time
import uuid
from pathlib import Path

import pytest

from xfs import figures
from xfs.node import MIB, PROJECTS, PROJID, VOLUME, Node, as_agent, ask, fields, project, run, tag, tag_and_flags, tagged
from xfs.wire import scope

FEW, SEVERAL, MANY = 10, 5000, 10000
TREE = 100_000
times = {}


class Manager:
    """A manager with one kept connection, so that only the agent's work is measured."""

    def __init__(self, agent):
        self.agent = agent
        self.connection = http.client.HTTPConnection(agent.manager.removeprefix("http://"), timeout=300)

    def call(self, method, path, **parameters):
        headers = {"X-BackendAI-Storage-Auth-Token": self.agent.manager_secret, "Content-Type": "application/json"}
        request = method, path, json.dumps({"volume": "xfs"} | parameters), headers
        try:
            self.connection.request(*request)
            reply = self.connection.getresponse()
        except ConnectionError:
            # It was idle for longer than the agent keeps a connection: told by the write (EPIPE, ECONNRESET) or by
            # the read, whichever comes first.
            self.connection.close()
            self.connection.request(*request)
            reply = self.connection.getresponse()
        content = reply.read()
        assert reply.status < 300, (reply.status, content)
        return json.loads(content) if content else None

    def create(self, owner, limit=MIB):
        self.call("POST", "/quota-scope", qsid=f"user:{owner}", options={"limit_bytes": limit})

    def update(self, owner, limit):
        self.call("PATCH", "/quota-scope", qsid=f"user:{owner}", options={"limit_bytes": limit})

    def describe(self, owner):
        return self.call("GET", "/quota-scope", qsid=f"user:{owner}")

    def remove(self, owner):
        self.call("DELETE", "/quota-scope", qsid=f"user:{owner}")


@pytest.fixture(scope="module")
def site():
    with Node() as node:
        yield node


@pytest.fixture(scope="module")
def manager(site):
    return Manager(site.agent)


@pytest.fixture(scope="module")
def owners():
    return []


def median_time(action, repeats):
    """Of the calls action(0), action(1), ... in seconds."""
    taken = []
    for number in range(repeats):
        started = time.perf_counter()
        action(number)
        taken.append(time.perf_counter() - started)
    return statistics.median(taken)


def grow(site, owners, total):
    """Two managers at once make scopes until there are so many."""
    wanted = [uuid.uuid4() for _ in range(total - len(owners))]
    errors = []

    def work(share):
        manager = Manager(site.agent)
        try:
            for owner in share:
                manager.create(owner)
        except Exception as error:  # reported by the test
            errors.append(error)

    threads = [threading.Thread(target=work, args=(wanted[part::2],)) for part in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors, errors
    owners += wanted


def measure(manager, owners, count):
    """The median times of each operation, with `count` scopes."""
    fresh = [uuid.uuid4() for _ in range(25)]
    times["create", count] = median_time(lambda i: manager.create(fresh[i]), len(fresh))
    times["update", count] = median_time(lambda i: manager.update(fresh[i], 2 * MIB), len(fresh))
    times["describe", count] = median_time(lambda i: manager.describe(owners[i % len(owners)]), 200)
    times["remove", count] = median_time(lambda i: manager.remove(fresh[i]), len(fresh))


def test_with_few_scopes(site, manager, owners):
    grow(site, owners, FEW)
    measure(manager, owners, FEW)


def test_a_limit_changes_as_fast_on_a_tree_of_100000_files(site, manager, owners):
    place = VOLUME / owners[0].hex
    number = tagged(place)
    manager.update(owners[0], 0)
    for directory in range(TREE // 1000):
        folder = place / f"d{directory}"
        folder.mkdir()
        for file in range(1000):
            (folder / f"f{file}").touch()
    times["update", "tree"] = median_time(lambda i: manager.update(owners[0], (900 + i) * MIB), 25)
    Path("/run/one.projects").write_text(f"5:{place}\n")
    Path("/run/one.projid").write_text("one:5\n")
    times["reference update", "tree"] = median_time(lambda i: reference("one", "/run/one", 900 + i), 1)
    ratio = times["reference update", "tree"] / times["update", "tree"]
    show("updating a limit, tree of 100,000 files", times["update", "tree"], times["update", FEW], ratio)
    assert times["update", "tree"] <= 1.5 * times["update", FEW]
    assert ratio > 5
    run("find", str(place), "-mindepth", "1", "-delete")
    tag(place, number, inherit=True)


def reference(name, files, mebibytes):
    """What the reference proxy runs for a new scope and for a new limit."""
    options = ["xfs_quota", "-x", "-D", f"{files}.projects", "-P", f"{files}.projid"]
    run(*options, "-c", f"project -s {name}", str(VOLUME))
    run(*options, "-c", f"limit -p bsoft={mebibytes}m bhard={mebibytes}m {name}", str(VOLUME))


def show(what, ours, few, ratio):
    print(f"\n{what:45} with {FEW} scopes: x{ours / few:.2f}; the reference's way takes x{ratio:.1f} as long")


def test_with_5000_scopes(site, manager, owners):
    grow(site, owners, SEVERAL)
    measure(manager, owners, SEVERAL)
    # The reference's files hold the same scopes.
    for suffix, path in (("projects", PROJECTS), ("projid", PROJID)):
        Path(f"/run/all.{suffix}").write_text(path.read_text())
    fresh = VOLUME / "reference"
    fresh.mkdir()

    def create(number):
        with open("/run/all.projects", "a") as projects, open("/run/all.projid", "a") as names:
            projects.write(f"{3000000 + number}:{fresh}\n")
            names.write(f"reference{number}:{3000000 + number}\n")
        reference(f"reference{number}", "/run/all", 1)

    times["reference create", SEVERAL] = median_time(create, 5)
    report = ["xfs_quota", "-x", "-D", "/run/all.projects", "-P", "/run/all.projid", "-c", "report -p -b", str(VOLUME)]
    times["reference describe", SEVERAL] = median_time(lambda _: run(*report), 3)
    fresh.rmdir()
    for what in ("create", "describe"):
        ratio = times[f"reference {what}", SEVERAL] / times[what, SEVERAL]
        show(f"{what}, {SEVERAL} scopes", times[what, SEVERAL], times[what, FEW], ratio)
        assert ratio > 2, what
    for what in ("create", "update", "describe"):
        assert times[what, SEVERAL] <= 1.5 * times[what, FEW], (what, times)


def test_10000_scopes(site, owners):
    grow(site, owners, MANY)
    numbers = {}
    for owner in owners:
        number, inherits = tag_and_flags(VOLUME / owner.hex)
        assert inherits and 1000000 <= number < 2000000
        numbers[owner.hex] = number
    duplicates = len(numbers) - len(set(numbers.values()))
    assert len(numbers) == MANY and duplicates == 0
    lines = {line.partition(":")[::2] for line in PROJID.read_text().splitlines()}
    assert {(name, str(number)) for name, number in numbers.items()} <= lines
    paths = {line.partition(":")[::2] for line in PROJECTS.read_text().splitlines()}
    assert {(str(number), f"{VOLUME}/{name}") for name, number in numbers.items()} <= paths
    for owner in owners[:: MANY // 20]:
        assert project(numbers[owner.hex])[1] == (MIB if owner != owners[0] else project(numbers[owner.hex])[1])
    figures.record("H14", f"2 managers made {MANY} scopes at once: {duplicates} duplicates, all tagged and in both files")


def test_the_helper_starts_again_with_10000_scopes(site, manager, owners):
    before = site.canary()
    started = time.monotonic()
    site.helper.restart()
    took = time.monotonic() - started
    assert isinstance(as_agent(lambda: ask("describe", "xfs", scope(owners[-1]))).id, int)
    resident = int(fields(site.helper.pid)["VmRSS"].split()[0])
    print(f"\nwith {MANY} scopes the helper is up after {took:.1f} s and uses {resident / 1024:.1f} MiB")
    assert resident <= 16 * 1024 and took < 15
    for owner in owners[:5] + owners[-5:]:
        manager.remove(owner)
    assert not any(f":{VOLUME}/{owner.hex}" in PROJECTS.read_text() for owner in owners[:5] + owners[-5:])
    assert site.canary() == before


def test_what_each_operation_costs():
    print(f"\n{'':12} {'with ' + str(FEW):>10} {'with ' + str(SEVERAL):>10}   reference")
    for what in ("create", "update", "describe", "remove"):
        few, several = times[what, FEW], times[what, SEVERAL]
        other = times.get((f"reference {what}", SEVERAL))
        print(f"{what:12} {1:10.2f} {several / few:10.2f}   {f'{other / few:.1f}' if other else '-'}")
