"""A taken-over agent can change nothing but the scopes of the listed volumes, however it asks."""

import os
import uuid

import pytest

from harness.agent import UNPRIVILEGED
from xfs import figures
from xfs.intruder import ATTEMPTS, MINE
from xfs.node import MIB, VOLUME, Helper, Node, as_agent, ask, project, tag
from xfs.wire import Project, Refused, scope, u64

outcomes = []


@pytest.fixture(scope="module")
def site(traced):
    """The helper alone, with a volume inside a directory that the agent owns, and one scope that is in use."""
    node = Node(traced)
    inner = VOLUME / "inner"
    inner.mkdir()
    os.chown(inner, UNPRIVILEGED, UNPRIVILEGED)
    node.helper.configure(rate=1000, extra=f"volume inner {inner}")
    node.helper.start()
    made = as_agent(lambda: ask("create", "xfs", scope(MINE), u64(10 * MIB)))
    assert isinstance(made, Project), made
    as_agent(lambda: fill(made.id))
    try:
        yield node
    finally:
        node.helper.stop()


def fill(number):
    """What the agent does for a new scope: a directory with the project's tag, and a file in it."""
    place = VOLUME / MINE.hex
    place.mkdir()
    tag(place, number, inherit=True)
    (place / "file").write_bytes(b"x" * 100000)


def mine():
    return as_agent(lambda: ask("describe", "xfs", scope(MINE)))


def mounted_roots():
    with open("/proc/self/mounts") as mounts:
        return mounts.read()


@pytest.mark.parametrize("name, action, uid, gid", ATTEMPTS, ids=[name for name, *_ in ATTEMPTS])
def test_attempt(site, name, action, uid, gid):
    before, mounts, pid = site.canary(), mounted_roots(), site.helper.pid
    files = len(os.listdir(f"/proc/{pid}/fd"))
    replies = as_agent(action, uid, gid)
    as_agent(lambda: ask("set_limit", "xfs", scope(MINE), u64(10 * MIB)))
    assert site.helper.process.poll() is None, site.helper.new_lines(0)[-2000:]
    found = mine()
    assert isinstance(found, Project), f"the agent is not served afterwards: {found}"
    assert found.used >= 100000 and found.limit == 10 * MIB == project(found.id)[1]
    changed = {key for key, value in site.canary().items() if value != before[key]}
    outcomes.append((name, changed))
    assert not changed, (changed, replies)
    assert mounted_roots() == mounts
    assert not os.path.exists("/etc/owned")
    assert len(os.listdir(f"/proc/{pid}/fd")) <= files, "it holds on to descriptors"
    if uid != UNPRIVILEGED:
        assert not isinstance(replies, (Project, str)) or replies in ("closed",) or "denied" in replies, replies


def test_refusals_say_what_is_wrong_in_one_line(site):
    for request in (
        ("describe", "other", scope(MINE)),
        ("describe", "xfs", scope(uuid.uuid4())),
        ("set_limit", "xfs", scope(MINE), u64(1 << 63)),
        ("remove", "xfs", scope(MINE)),
    ):
        reply = as_agent(lambda: ask(*request))
        assert isinstance(reply, Refused), (request, reply)
        assert 20 <= len(reply.message.encode()) <= 1024 and reply.message.isprintable(), reply


def test_the_log_has_one_line_for_each_request_and_none_of_the_senders_control_characters(site):
    mark = site.helper.logged()
    as_agent(lambda: ask("describe", "xfs", scope(MINE)))
    as_agent(lambda: ask("describe", "xfs\n\x1b[31m", scope(MINE)))
    lines = site.helper.new_lines(mark).splitlines()
    assert all(line.isprintable() for line in lines), lines
    (line,) = [line for line in lines if MINE.hex in line.replace("-", "")]
    assert str(UNPRIVILEGED) in line and "describe" in line.lower() and "xfs" in line, line
    figures.record("H17", f"one line a request, e.g. {line.strip()[:110]}")


def test_at_least_forty_attempts_changed_nothing():
    changed = [name for name, what in outcomes if what]
    print(f"\n{len(outcomes)} attempts of a compromised agent, {len(changed)} changed anything outside its scopes")
    assert len(outcomes) >= 40 and not changed
    figures.record("H12", f"{len(outcomes)} attempts with the agent's uid, {len(changed)} reached anything else")
