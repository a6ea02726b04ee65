"""What breaks on a storage node: each is told with its cause and its cure, and leaves the files right."""

import contextlib
import json
import os
import signal
import socket
import threading
import uuid

import pytest

from harness.agent import UNPRIVILEGED, ApiError
from xfs import wire
from xfs.node import MIB, MOUNTS, OTHER, PROJECTS, PROJID, SMALL, SOCKET, VOLUME, as_agent, ask, project, run
from xfs.site import BareFolder, ScopedFolder, Upload, lines_about
from xfs.wire import Project, Refused, scope, u64


def failure(action, *words, status=None):
    """The message of an API error, which has to hold all the words."""
    with pytest.raises(ApiError) as refused:
        action()
    message = json.loads(refused.value.body)["msg"]
    print(f"\n  {refused.value.status}: {message}")
    assert status is None or refused.value.status == status, refused.value
    assert all(word in message.lower() for word in words), message
    assert str(VOLUME) not in message, "no path of the host reaches a user"
    return message


def untouched(node):
    """The files and their number of lines, for comparing."""
    return node.canary(), PROJECTS.read_text(), PROJID.read_text()


def made(path=VOLUME):
    """Directories at the top of a volume."""
    return sorted(entry.name for entry in path.iterdir())


def create(node, volume="xfs", owner=None, limit=MIB):
    owner = owner or uuid.uuid4()
    node.agent.call("POST", "/quota-scope", volume=volume, qsid=f"user:{owner}", options={"limit_bytes": limit})
    return owner


def test_without_the_helper_limits_cannot_change_but_all_else_works(node):
    folder = ScopedFolder(node.agent, limit=8 * MIB)
    before, directories = untouched(node), made()
    node.helper.stop()
    try:
        failure(lambda: create(node), "quota helper", "quota-helper")
        failure(lambda: folder.set_limit(MIB), "quota-helper")
        failure(lambda: BareFolder(node.agent, MIB), "quota-helper")
        assert folder.describe()[1] == 8 * MIB, "statfs tells it"
        data = os.urandom(MIB)
        assert Upload(folder, "file", len(data)).send(data)[0] == 204
        assert untouched(node) == before
        assert [name for name in made() if name not in directories and len(name) == 32] == []
    finally:
        node.helper.start()
    folder.set_limit(MIB)
    assert project(folder.number)[1] == MIB


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL], ids=["stopped", "killed"])
def test_a_restarted_helper_is_found_again(node, how):
    owner = create(node)
    node.helper.stop(how)
    node.helper.start()
    node.agent.call("PATCH", "/quota-scope", volume="xfs", qsid=f"user:{owner}", options={"limit_bytes": 3 * MIB})
    create(node)


class Impostor:
    """Another program behind the helper's socket: what it sends is what the agent gets."""

    def __init__(self, node, reply):
        self.node, self.reply = node, reply

    def __enter__(self):
        self.node.helper.stop()
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(SOCKET))
        SOCKET.chmod(0o666)
        self.listener.listen(16)
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            try:
                connection, _ = self.listener.accept()
                connection.recv(4096)
                connection.sendall(self.reply)
                if self.reply:
                    connection.close()
            except OSError:
                return

    def __exit__(self, *_):
        self.listener.close()
        SOCKET.unlink()
        self.node.helper.start()


@pytest.mark.parametrize(
    "reply, words",
    [
        (wire.framed(wire.u32(4) + wire.u32(0) + wire.text("speaks version 2 only"), version=1), ["version"]),
        (wire.framed(b"\0" * 40, version=9), ["version"]),
        (wire.u32(1 << 30) + b"x" * 100, ["quota"]),
        (wire.framed(wire.u32(77)), ["quota"]),
        (wire.framed(wire.u32(1) + wire.u32(0) + wire.u64(MIB) + wire.u64(0) + b"\1"), ["quota"]),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", ["quota"]),
    ],
    ids=["a refusal of the version", "a newer version", "a huge frame", "an unknown reply", "project 0", "another protocol"],
)
def test_a_helper_that_speaks_otherwise_is_told(node, reply, words):
    before, directories = untouched(node), made()
    with Impostor(node, reply):
        failure(lambda: create(node), *words)
    assert untouched(node) == before
    assert [name for name in made() if name not in directories and len(name) == 32] == []


def test_a_volume_mounted_without_project_quotas_is_told(node):
    before = untouched(node)
    owner = uuid.uuid4()
    failure(lambda: create(node, "noquota", owner), "pquota")
    assert untouched(node) == before
    assert not (MOUNT_WITHOUT / owner.hex).exists()
    assert "pquota" in as_agent(lambda: ask("status"))[1]["noquota"]


MOUNT_WITHOUT = next(path for path, (_, options) in MOUNTS.items() if options == "defaults")


def test_a_volume_that_is_not_mounted_is_told(node):
    owner = create(node, "small")
    before = untouched(node)
    run("umount", str(SMALL))
    try:
        failure(lambda: create(node, "small"), "mount")
        failure(lambda: update(node, "small", owner), "mount")
        reply = as_agent(lambda: ask("set_limit", "small", scope(owner), u64(5 * MIB)))
        assert isinstance(reply, Refused) and reply.kind == "NotMounted" and "mount" in reply.message, reply
        assert untouched(node) == before
    finally:
        run("mount", "-o", MOUNTS[SMALL][1], MOUNTS[SMALL][0], str(SMALL))
    update(node, "small", owner)


def update(node, volume, owner, limit=5 * MIB):
    node.agent.call("PATCH", "/quota-scope", volume=volume, qsid=f"user:{owner}", options={"limit_bytes": limit})


def test_another_file_system_in_the_volumes_place_is_not_touched(node):
    owner, before = create(node, "small"), untouched(node)
    run("mount", "--bind", str(OTHER), str(SMALL))
    try:
        reply = as_agent(lambda: ask("create", "small", scope(uuid.uuid4()), u64(MIB)))
        # The helper may serve what root mounted there; it must not change another's project.
        assert isinstance(reply, (Project, Refused))
        if isinstance(reply, Project):
            assert reply.created and 1000000 <= reply.id < 2000000
    finally:
        run("umount", str(SMALL))
    assert node.canary()["foreign project"] == before[0]["foreign project"]
    update(node, "small", owner)


def test_etc_full_leaves_whole_lines_and_goes_on_when_there_is_room(node):
    room = "/run/etc-room"
    os.makedirs(room, exist_ok=True)
    run("mount", "-t", "tmpfs", "-o", "size=256k", "room", room)
    for path in (PROJECTS, PROJID):
        run("cp", "-p", str(path), f"{room}/{path.name}")
        run("mount", "--bind", f"{room}/{path.name}", str(path))
    node.helper.restart()
    try:
        fill(f"{room}/ballast")
        # What is left of the last page of either file takes some more lines.
        for _ in range(200):
            before = untouched(node)
            try:
                create(node)
            except ApiError as error:
                message = json.loads(error.body)["msg"]
                break
        else:
            pytest.fail("200 scopes found room")
        assert "space" in message.lower(), message
        assert untouched(node) == before, "a refused creation left something"
        os.unlink(f"{room}/ballast")
        owner = create(node)
        assert [len(lines) for lines in lines_about(VOLUME / owner.hex, owner.hex)] == [1, 1]
        whole_lines(node)
    finally:
        for path in (PROJECTS, PROJID):
            content = path.read_bytes()
            run("umount", str(path))
            path.write_bytes(content)
        run("umount", room)
        node.helper.restart()
    assert isinstance(as_agent(lambda: ask("describe", "xfs", scope(owner))), Project)


def fill(path):
    """Writes until there is no space."""
    with open(path, "wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"x" * 512)


def whole_lines(node):
    """Each of the helper's lines is one of a pair."""
    numbers = [line.partition(":")[0] for line in PROJECTS.read_text().splitlines() if line[:1].isdigit()]
    names = [line.rpartition(":")[2] for line in PROJID.read_text().splitlines() if ":" in line]
    ours = lambda values: sorted(value for value in values if value.isdigit() and int(value) >= 1000000)
    assert ours(numbers) == ours(names) and len(set(ours(numbers))) == len(ours(numbers))


@pytest.mark.parametrize("kind", ["link elsewhere", "link to a project", "dangling link", "file", "pipe", "mount"])
def test_something_else_in_the_scopes_place_is_told(node, kind):
    owner, before = uuid.uuid4(), untouched(node)
    place = VOLUME / owner.hex
    if kind == "link elsewhere":
        place.symlink_to(OTHER)
    elif kind == "link to a project":
        place.symlink_to(VOLUME / "foreign")
    elif kind == "dangling link":
        place.symlink_to(VOLUME / "nowhere")
    elif kind == "file":
        place.write_bytes(b"")
    elif kind == "pipe":
        os.mkfifo(place)
    else:
        place.mkdir()
        run("mount", "--bind", str(OTHER), str(place))
    cause = "another file system" if kind == "mount" else "in the place of its directory"
    try:
        failure(lambda: create(node, owner=owner), cause)
        failure(lambda: update(node, "xfs", owner), cause)
        with pytest.raises(ApiError):
            node.agent.call("DELETE", "/quota-scope", volume="xfs", qsid=f"user:{owner}")
        assert node.canary() == before[0]
    finally:
        if kind == "mount":
            run("umount", str(place))
            place.rmdir()
        else:
            place.unlink()
    create(node, owner=owner)
    assert [len(lines) for lines in lines_about(place, owner.hex)] == [1, 1]


def test_a_scope_replaced_later_is_told_and_its_project_stays(node):
    owner = create(node, limit=4 * MIB)
    place, aside = VOLUME / owner.hex, VOLUME / "aside"
    number = as_agent(lambda: ask("describe", "xfs", scope(owner))).id
    place.rename(aside)
    place.symlink_to(OTHER)
    before = node.canary()
    try:
        failure(lambda: update(node, "xfs", owner), "in the place of its directory")
        with pytest.raises(ApiError):
            node.agent.call("GET", "/quota-scope", volume="xfs", qsid=f"user:{owner}")
        with pytest.raises(ApiError):
            node.agent.call("DELETE", "/quota-scope", volume="xfs", qsid=f"user:{owner}")
        assert node.canary() == before
    finally:
        place.unlink()
        aside.rename(place)
    assert project(number)[1] == 4 * MIB
    assert node.agent.call("GET", "/quota-scope", volume="xfs", qsid=f"user:{owner}")["limit_bytes"] == 4 * MIB


def test_lines_that_others_add_meanwhile_are_kept(node):
    create(node)
    with PROJECTS.open("a") as projects, PROJID.open("a") as names:
        projects.write(f"88:{VOLUME}/added\n")
        names.write("added:88\n")
    owner = create(node)
    node.agent.call("DELETE", "/quota-scope", volume="xfs", qsid=f"user:{owner}")
    assert f"\n88:{VOLUME}/added\n" in PROJECTS.read_text() and "\nadded:88\n" in PROJID.read_text()


def test_the_range_of_ids_used_up_is_told(node):
    taken = as_agent(lambda: ask("create", "xfs", scope(uuid.uuid4()), u64(MIB))).id
    node.helper.configure(ids=f"{taken}-{taken}")
    node.helper.restart()
    try:
        failure(lambda: create(node), "ids")
    finally:
        node.helper.configure()
        node.helper.restart()
    create(node)
