"""Both units as they are shipped, started by systemd: the helper by its socket, the agent as a user of its own."""

import ctypes
import json
import os
import re
import shutil
import time
import urllib.error
import urllib.request
import uuid
from pathlib import Path

import pytest

from xfs import figures
from xfs.node import MIB, PROJECTS, PROJID, VOLUME, as_agent, fields, project, run, tag_and_flags

PACKAGING = Path(__file__).parents[3] / "packaging"
SECRET = "manager-secret-manager-secret-0123"
PROXY = f"""\
[storage-proxy]
secret = "token-secret-token-secret-token-01"
session-expire = "1d"
[api.client]
service-addr = {{ host = "127.0.0.1", port = 6021 }}
[api.manager]
service-addr = {{ host = "127.0.0.1", port = 6022 }}
secret = "{SECRET}"
[volume.local]
backend = "xfs"
path = "{VOLUME}"
"""
INSTALLED = {
    "storage-agent.service": "/etc/systemd/system/storage-agent.service",
    "quota-helper.service": "/etc/systemd/system/quota-helper.service",
    "quota-helper.socket": "/etc/systemd/system/quota-helper.socket",
    "storage-agent.sysusers": "/etc/sysusers.d/storage-agent.conf",
    "storage-agent.tmpfiles": "/etc/tmpfiles.d/storage-agent.conf",
    "quota-helper.tmpfiles": "/etc/tmpfiles.d/storage-agent-quota-helper.conf",
    "quota-helper.conf": "/etc/storage-agent/quota-helper.conf",
}
UNITS = "quota-helper.socket", "quota-helper.service", "storage-agent.service"


def journal():
    return run("journalctl", "--no-pager", "-o", "short", "-n", "80", *(f"--unit={unit}" for unit in UNITS), check=False)


@pytest.fixture(scope="module", autouse=True)
def node():
    """The programs and files in their places, as packaging/README.md says, and both units up."""
    PROJECTS.unlink(missing_ok=True)
    PROJID.write_text("foreign:77\n")
    for program in ("AGENT_BINARY", "HELPER_BINARY"):
        shutil.copy(os.environ[program], "/usr/bin/")
    for name, place in INSTALLED.items():
        Path(place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(PACKAGING / name, place)
        Path(place).chmod(0o644)
    with open(INSTALLED["quota-helper.conf"], "a") as config:
        config.write(f"requests-per-second 1000\nvolume local {VOLUME}\n")
    run("systemd-sysusers")
    run("systemd-tmpfiles", "--create", "storage-agent.conf", "storage-agent-quota-helper.conf")
    run("chown", "storage-agent:storage-agent", str(VOLUME))
    proxy = Path("/etc/backend.ai/storage-proxy.toml")
    proxy.write_text(PROXY)
    run("chown", "root:storage-agent", str(proxy))
    proxy.chmod(0o640)
    run("systemctl", "daemon-reload")
    try:
        run("systemctl", "start", "quota-helper.socket", "storage-agent.service")
        yield
    except AssertionError as error:
        raise AssertionError(f"{error}\n{journal()}") from None


def call(method, path, **parameters):
    headers = {"X-BackendAI-Storage-Auth-Token": SECRET, "Content-Type": "application/json"}
    body = json.dumps({"volume": "local"} | parameters).encode()
    request = urllib.request.Request(f"http://127.0.0.1:6022{path}", body, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=60) as reply:
            content = reply.read()
    except urllib.error.HTTPError as error:
        raise AssertionError(f"{error.code} {error.read()!r}\n{journal()}") from None
    return json.loads(content) if content else None


def create():
    owner = uuid.uuid4()
    call("POST", "/quota-scope", qsid=f"user:{owner}", options={"limit_bytes": 5 * MIB})
    return owner


def helper():
    pid = int(run("systemctl", "show", "-p", "MainPID", "--value", "quota-helper.service"))
    assert pid, journal()
    return pid


def test_a_scope_is_made_limited_and_removed():
    owner = create()
    number, inherits = tag_and_flags(VOLUME / owner.hex)
    assert inherits and project(number)[1] == 5 * MIB
    assert f"{number}:{VOLUME}/{owner.hex}" in PROJECTS.read_text()
    assert call("GET", "/quota-scope", qsid=f"user:{owner}")["limit_bytes"] == 5 * MIB
    call("DELETE", "/quota-scope", qsid=f"user:{owner}")
    assert owner.hex not in PROJECTS.read_text() + PROJID.read_text()
    assert PROJID.read_text() == "foreign:77\n" and project(number) == (0, 0)


def test_the_helper_has_the_privilege_that_its_unit_leaves_it():
    create()
    status = fields(helper())
    assert {status[name].lstrip("0") for name in ("CapPrm", "CapEff", "CapBnd")} == {"200000"}
    assert status["NoNewPrivs"] == "1" and status["Seccomp"] == "2"
    figures.record("H5", "the same under systemd with the shipped unit")


def test_the_helper_sees_a_read_only_world_but_for_three_places():
    create()
    pid = str(helper())
    outside = ["/etc/new", "/etc/passwd", "/usr/new", "/usr/bin/quota-helper", "/var/new", "/var/lib/new", "/boot/new",
               "/opt/new", "/root/new", "/home/new", "/run/new", f"{VOLUME}/new", "/sys/kernel/mm/new",
               "/proc/sys/kernel/core_pattern", "/etc/storage-agent/quota-helper.conf"]
    inside = ["/var/lib/storage-agent-quota-helper/new", "/etc/projects", "/etc/projid"]
    writable = [path for path in outside + inside if appends(pid, path)]
    run("rm", "-f", "/var/lib/storage-agent-quota-helper/new")
    figures.record("H8", f"{len(outside)} places tried for writing: {len(set(writable) & set(outside))} worked; "
                         f"its state and the two files: {len(set(writable) & set(inside))} of 3")
    assert writable == inside
    assert as_agent(lambda: inside_of(pid, lambda: os.listdir("/home")), 0, 0) == []


def appends(pid, path):
    """Whether root can open the file for writing in the mount namespace of the process."""
    return as_agent(lambda: inside_of(pid, lambda: can_append(path)), 0, 0)


def inside_of(pid, action):
    """Runs it in another process's mount namespace; for a process of its own, as there is no way back."""
    with open(f"/proc/{pid}/ns/mnt") as namespace:
        if ctypes.CDLL(None).setns(namespace.fileno(), 0) != 0:
            raise OSError("cannot enter the namespace")
    return action()


def can_append(path):
    try:
        open(path, "a").close()
    except OSError:
        return False
    return True


def test_the_socket_is_for_the_agent_alone():
    socket = Path("/run/storage-agent/quota-helper.sock")
    assert (socket.stat().st_mode & 0o777, socket.parent.stat().st_mode & 0o777) == (0o660, 0o750)
    assert socket.owner() == "root" and socket.group() == socket.parent.group() == "storage-agent"


def test_a_killed_helper_is_back_for_the_next_request():
    create()
    first = helper()
    os.kill(first, 9)
    create()
    assert helper() != first
    run("systemctl", "stop", "quota-helper.service")
    create()
    assert helper()


def test_files_that_an_editor_replaced_are_used_after_a_restart():
    create()
    run("sed", "-i", "1i # edited by hand", str(PROJECTS))
    try:
        owner = create()
    except AssertionError as error:
        assert "restart" in str(error).partition("\n")[0], error
        run("systemctl", "restart", "quota-helper.service")
        owner = create()
    text = PROJECTS.read_text()
    assert text.startswith("# edited by hand\n") and f"/{owner.hex}\n" in text


def test_check_finds_nothing_to_complain_of():
    report = run("setpriv", "--reuid", "storage-agent", "--regid", "storage-agent", "--clear-groups",
                 "storage-agent", "check", "-f", "/etc/backend.ai/storage-proxy.toml", check=False)
    assert re.search("quota helper .* serves it", report), report


def test_both_units_ran_without_a_complaint_of_systemd():
    create()
    time.sleep(0.2)
    assert run("systemctl", "--failed", "--no-legend", "--plain").strip() == ""
    assert "Unknown key" not in journal() and "Failed to" not in journal(), journal()
