"""The helper's promises that only a running helper on a real kernel can show, with their figures."""

import os
import re
import shutil
import signal
import time
import uuid
from pathlib import Path

import pytest

from harness.agent import UNPRIVILEGED
from xfs import figures, intruder
from xfs.node import MIB, VOLUME, Node, as_agent, ask, fields, run
from xfs.wire import Closed, Connection, Project, Refused, body, framed, scope, u64

SYS_ADMIN = 1 << 21
TOOL = "/opt/tool/xfs_quota"


@pytest.fixture(scope="module")
def site():
    """The helper alone and without a tracer, which would change what the kernel says of it."""
    node = Node()
    node.helper.start()
    try:
        yield node
    finally:
        node.helper.stop()


def create(limit=MIB, owner=None, patience=60):
    def request():
        with Connection(intruder.SOCKET, patience) as connection:
            return connection.ask("create", "xfs", scope(owner), u64(limit))

    owner = owner or uuid.uuid4()
    return as_agent(request)


def test_the_helper_has_one_capability_and_can_gain_none(site):
    create()
    status = fields(site.helper.pid)
    sets = {name: int(status[name], 16) for name in ("CapPrm", "CapEff", "CapBnd", "CapInh", "CapAmb")}
    assert sets["CapPrm"] == sets["CapEff"] == sets["CapBnd"] == SYS_ADMIN, sets
    assert sets["CapInh"] in (0, SYS_ADMIN) and sets["CapAmb"] in (0, SYS_ADMIN), sets
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == "2", "a system call filter is in force"
    assert status["Groups"] in ("", "0"), status["Groups"]
    figures.record("H5", "prm=eff=bnd={CAP_SYS_ADMIN} inh=%x amb=%x NoNewPrivs=1 Seccomp=2" % (sets["CapInh"], sets["CapAmb"]))


def test_it_gives_up_all_else_itself_where_nobody_did_before(site):
    site.helper.confinement, kept = list, site.helper.confinement
    try:
        site.helper.restart()
        status = fields(site.helper.pid)
        for name in ("CapPrm", "CapEff", "CapBnd"):
            assert int(status[name], 16) == SYS_ADMIN, (name, status[name])
        assert status["NoNewPrivs"] == "1"
    finally:
        site.helper.confinement = kept
        site.helper.restart()


def test_it_is_small_and_its_resources_are_bounded(site):
    create()
    time.sleep(1)
    resident = int(fields(site.helper.pid)["VmRSS"].split()[0])
    limits = Path(f"/proc/{site.helper.pid}/limits").read_text()
    soft = {name: re.search(rf"^{name} +(\S+)", limits, re.M)[1] for name in
            ("Max open files", "Max processes", "Max core file size")}
    assert resident <= 4096, f"{resident} KiB"
    assert int(soft["Max open files"]) <= 64 and int(soft["Max processes"]) <= 4 and soft["Max core file size"] == "0", soft
    figures.record("H16", f"RSS {resident / 1024:.1f} MiB, NOFILE {soft['Max open files']}, "
                          f"NPROC {soft['Max processes']}, CORE {soft['Max core file size']}")


def test_frames_are_bounded_before_anything_is_reserved_for_them(site):
    before = int(fields(site.helper.pid)["VmHWM"].split()[0])
    for length in (0, 4097, 1 << 20, (1 << 32) - 1):
        reply = as_agent(lambda: intruder.exchange(wire_length(length)))
        assert reply == "closed" or isinstance(reply, Refused) and reply.kind == "Malformed", (length, reply)
    leftovers = as_agent(lambda: intruder.exchange(framed(body("status") + b"\0")))
    assert leftovers == "closed" or leftovers.kind == "Malformed", leftovers
    other = as_agent(lambda: intruder.exchange(framed(body("status"), version=2)))
    assert isinstance(other, Refused) and other.kind == "Version", other
    grown = int(fields(site.helper.pid)["VmHWM"].split()[0]) - before
    assert grown < 256
    figures.record("H10", f"0, 4097, 2^20, 2^32-1 bytes, leftovers, version 2: refused; peak memory +{grown} KiB")


def wire_length(length):
    return length.to_bytes(4, "little") + b"\1" * 64


def test_peers_are_judged_by_the_kernels_word(site):
    subject = scope(uuid.uuid4())
    request = framed(body("create", "xfs", subject, u64(MIB)))
    for uid, gid in ((0, 0), (intruder.STRANGER, UNPRIVILEGED)):
        # Not a byte is sent: the connection ends all the same.
        assert as_agent(lambda: silent(b""), uid, gid) == "closed", uid
        assert as_agent(lambda: silent(request), uid, gid) == "closed", uid
    handed = [action for name, action, *_ in intruder.ATTEMPTS if "handed to the agent" in name][0]
    assert as_agent(handed, 0, 0) == "closed"
    reply = as_agent(lambda: ask("describe", "xfs", subject))
    assert isinstance(reply, Refused) and reply.kind == "NotFound"
    figures.record("H9", "root, another uid, another's connection handed to the agent: closed before a byte")


def silent(data):
    with Connection(intruder.SOCKET, patience=3) as connection:
        try:
            if data:
                connection.send(data)
            return connection.receive()
        except Closed:
            return "closed"


def test_slow_and_many_requests_are_bounded(site):
    started = time.monotonic()
    half = as_agent(lambda: silent_half())
    took = time.monotonic() - started
    assert half == "closed" or isinstance(half, Refused)
    assert took <= 6.5, f"a half request was borne for {took:.1f} s"
    site.helper.configure(rate=20)
    site.helper.restart()
    try:
        served = as_agent(lambda: count_served(5))
    finally:
        site.helper.configure()
        site.helper.restart()
    assert served <= 20 * 6 + 20, served
    figures.record("H11", f"half a request borne {took:.1f} s; {served / 5:.0f} requests/s served of a flood")


def silent_half():
    with Connection(intruder.SOCKET, patience=9) as connection:
        connection.send(framed(body("status"))[:5])
        try:
            return connection.receive()
        except Closed:
            return "closed"


def count_served(seconds):
    served, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            with Connection(intruder.SOCKET) as connection:
                while time.monotonic() < end:
                    reply = connection.ask("status")
                    served += not isinstance(reply, Refused)
        except Closed:
            pass
    return served


def test_at_most_eight_connections_are_served(site):
    def open_many():
        connections = [Connection(intruder.SOCKET, patience=1) for _ in range(12)]
        answered = 0
        for connection in connections:
            try:
                answered += not isinstance(connection.ask("status"), Refused)
            except (Closed, TimeoutError):
                pass
        return answered

    answered = as_agent(open_many)
    assert 1 <= answered <= 8
    figures.record("H11", f"12 connections at once: {answered} served")


@pytest.fixture
def tool(site):
    """The helper with another program in the place of xfs_quota; returns how to set its behaviour."""
    Path(TOOL).parent.mkdir(exist_ok=True)
    shutil.copy(Path(os.environ["FIGURES"]) / ".tool", TOOL)
    os.chown(TOOL, 0, 0)
    site.helper.configure(xfs_quota=TOOL)
    Path("/run/tool").write_text("")
    site.helper.restart()
    yield Path("/run/tool").write_text
    Path("/run/tool").write_text("")
    site.helper.configure()
    site.helper.restart()


def test_the_tool_runs_with_nothing_but_what_it_needs(tool, site):
    create()
    seen = Path("/run/tool.seen").read_text().splitlines()
    arguments = [line.partition(" ")[2] for line in seen if line.startswith("argument")]
    environment = [line.partition(" ")[2] for line in seen if line.startswith("environment")]
    descriptors = [line.split()[1:] for line in seen if line.startswith("descriptor")]
    assert all(pair.startswith(("PATH=", "LC_ALL=", "LANG=")) for pair in environment), environment
    numbers = [number for number, *_ in descriptors]
    assert numbers == ["0", "1", "2"], descriptors
    assert descriptors[0][1] == "/dev/null", descriptors
    assert not any("sh" == Path(argument).name for argument in arguments)
    assert str(VOLUME) in arguments and "/dev/null" in arguments
    figures.record("H13", f"environment {environment or 'empty'}, descriptors 0-2, stdin /dev/null, no shell")


@pytest.mark.parametrize("mode", ["rubbish", "silent", "error, exit 0", "exit 1", "flood", "crash"])
def test_a_tool_that_misbehaves_is_an_error_and_the_files_stay_right(tool, site, mode):
    before = site.canary()
    kept = create(2 * MIB, owner := uuid.uuid4())
    assert isinstance(kept, Project)
    tool(mode)
    requests = [
        lambda: create(),
        lambda: as_agent(lambda: ask("set_limit", "xfs", scope(owner), u64(4 * MIB))),
        lambda: as_agent(lambda: ask("remove", "xfs", scope(owner))),
    ]
    # Of a project that has no record in the kernel the real one says nothing too, so that silence lets it be removed.
    for request in requests[: 2 if mode == "silent" else 3]:
        reply = request()
        assert isinstance(reply, Refused), (mode, reply)
        assert reply.kind in ("ToolFailed", "InUse") and "xfs_quota" in reply.message, reply
        assert reply.message.isprintable(), reply
    tool("")
    reply = as_agent(lambda: ask("describe", "xfs", scope(owner)))
    assert isinstance(reply, Project) and reply.id == kept.id, reply
    assert isinstance(create(), Project)
    assert site.canary() == before


def test_a_tool_that_hangs_is_killed(tool, site):
    tool("hang")
    started = time.monotonic()
    reply = create(patience=45)
    took = time.monotonic() - started
    assert isinstance(reply, Refused) and reply.kind == "ToolFailed", reply
    assert took <= 33
    assert not [pid for pid in os.listdir("/proc") if pid.isdigit() and program(pid) == TOOL]
    figures.record("H11", f"a hanging xfs_quota killed after {took:.0f} s")


def program(pid):
    try:
        return os.readlink(f"/proc/{pid}/exe")
    except OSError:
        return ""


@pytest.mark.parametrize("wrong", ["missing", "group-writable", "another's", "relative", "a directory"])
def test_a_tool_that_others_can_change_is_refused(site, wrong, tmp_path):
    place = Path("/opt/wrong/xfs_quota")
    place.parent.mkdir(exist_ok=True)
    run("rm", "-rf", str(place))
    if wrong == "a directory":
        place.mkdir()
    elif wrong != "missing":
        place.write_bytes(Path("/usr/sbin/xfs_quota").read_bytes())
        place.chmod(0o775 if wrong == "group-writable" else 0o755)
        if wrong == "another's":
            os.chown(place, UNPRIVILEGED, UNPRIVILEGED)
    path = "opt/wrong/xfs_quota" if wrong == "relative" else str(place)
    if wrong == "relative":
        assert "xfs_quota" in refused_start(site, xfs_quota=path)
        return
    site.helper.configure(xfs_quota=path)
    site.helper.restart()
    before = site.canary()
    try:
        reply = create()
        assert isinstance(reply, Refused) and reply.kind == "ToolFailed" and path in reply.message, reply
        assert site.canary() == before
    finally:
        site.helper.configure()
        site.helper.restart()


@pytest.mark.parametrize("wrong", ["group-writable", "another's", "agent root", "unknown key", "no volume", "huge range"])
def test_a_configuration_that_cannot_be_right_is_refused(site, wrong):
    settings = {"agent root": {"agent": "root"}, "unknown key": {"extra": "volum x /y"}, "huge range": {"ids": "0-5"}}
    text = refused_start(site, spoil=wrong, **settings.get(wrong, {}))
    assert "quota-helper.conf" in text, text


def refused_start(site, spoil="", **settings):
    """What the helper says when it does not start."""
    site.helper.stop()
    site.helper.configure(**settings)
    config = intruder.CONFIG
    if spoil == "group-writable":
        config.chmod(0o664)
    elif spoil == "another's":
        os.chown(config, UNPRIVILEGED, UNPRIVILEGED)
    elif spoil == "no volume":
        config.write_text("\n".join(line for line in config.read_text().splitlines() if not line.startswith("volume")))
    mark = site.helper.logged()
    try:
        with pytest.raises(RuntimeError):
            site.helper.start()
            site.helper.stop()
        assert site.helper.process.wait(5) not in (0, -signal.SIGSYS)
        return site.helper.new_lines(mark)
    finally:
        os.chown(config, 0, 0)
        site.helper.configure()
        site.helper.start()
