"""A taken-over agent: what it tries on the helper's socket and around it.

Each attempt is a function that runs with the agent's identity, or with the one its decorator names. It returns whatever
came back; the test judges what changed. An attempt's first line of text is its name in the report.
"""

import array
import ctypes
import os
import random
import socket
import struct
import threading
import time
import uuid

from harness.agent import UNPRIVILEGED
from xfs import wire
from xfs.node import CONFIG, LOOKALIKE, OTHER, PROJECTS, PROJID, SOCKET, STATE, VOLUME, tag
from xfs.wire import Closed, Connection, body, folder, framed, scope, text, u32, u64

ATTEMPTS = []
STRANGER = 1200
NEW_USER, NEW_MOUNTS, BIND = 0x10000000, 0x00020000, 4096
PR_SET_DUMPABLE = 4
MINE = uuid.UUID("0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a")  # a scope that the agent has rightly made
ABSENT = uuid.UUID("0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b")


def attempt(name, uid=UNPRIVILEGED, gid=UNPRIVILEGED):
    def register(action):
        ATTEMPTS.append((name, action, uid, gid))
        return action

    return register


def exchange(data, finish=False, patience=60):
    """Sends bytes and returns the reply, or "closed"."""
    with Connection(SOCKET, patience) as connection:
        try:
            connection.send(data)
            if finish:
                connection.socket.shutdown(socket.SHUT_WR)
            return connection.receive()
        except Closed:
            return "closed"


def everything(volume, subject):
    """All requests that name a subject."""
    return [
        exchange(framed(body(*request)))
        for request in (
            ("create", volume, subject, u64(1 << 20)),
            ("set_limit", volume, subject, u64(0)),
            ("describe", volume, subject),
            ("remove", volume, subject),
            ("list", volume, b"\1" + subject),
        )
    ]


def volume_attempt(name, volume):
    attempt(name)(lambda: everything(volume, scope(MINE)))


volume_attempt("a path as the volume: ../etc", "../etc")
volume_attempt("the path of another file system as the volume", str(OTHER))
volume_attempt("a path through the volume: xfs/../other", "xfs/../other")
volume_attempt("the volume .", ".")
volume_attempt("the volume ..", "..")
volume_attempt("a volume without a name", "")
volume_attempt("a volume like an option: -x", "-x")
volume_attempt("a volume with NUL", "xfs\0")
volume_attempt("a volume with a line of /etc/projects", f"xfs\n1:{OTHER}")
volume_attempt("a volume with a shell command", "xfs;touch /etc/owned")
volume_attempt("a volume with a blank and a second command", "xfs -c limit")
volume_attempt("a volume of 65 letters", "x" * 65)
volume_attempt("a volume of 3,900 letters", "x" * 3900)
volume_attempt("a volume that is not UTF-8", b"xfs\xff\xfe")
volume_attempt("a mounted XFS that is not listed: other", "other")
volume_attempt("a listed volume in other letters: XFS", "XFS")


@attempt("the name of another's project as a scope")
def _():
    return everything("xfs", scope(LOOKALIKE))


@attempt("the name of another's project as a folder")
def _():
    return everything("xfs", folder(LOOKALIKE))


@attempt("a scope that never existed: limit, describe, remove")
def _():
    return [exchange(framed(body(name, "xfs", scope(ABSENT), *rest)))
            for name, rest in (("set_limit", [u64(5)]), ("describe", []), ("remove", []))]


@attempt("another's project by number in place of an id")
def _():
    return [exchange(framed(body("set_limit", "xfs", u32(kind) + u32(1234), u64(0)))) for kind in (0, 1, 2)]


@attempt("a path in place of an id")
def _():
    return [exchange(framed(body("create", "xfs", u32(kind) + text(str(OTHER)), u64(0)))) for kind in (0, 1, 2)]


@attempt("project 0, whose limit is everybody's default, as an all-zero id")
def _():
    zero = uuid.UUID(int=0)
    return everything("xfs", scope(zero)) + everything("xfs", folder(zero))


@attempt("unknown kinds of subject: 2 to 40 and the largest")
def _():
    return [exchange(framed(body("remove", "xfs", u32(kind) + MINE.bytes))) for kind in (*range(2, 41), (1 << 32) - 1)]


@attempt("limits above 2^63-1, which xfs_quota takes for negative or none")
def _():
    return [exchange(framed(body(name, "xfs", scope(MINE), u64(limit))))
            for name in ("create", "set_limit") for limit in (1 << 63, (1 << 64) - 5, (1 << 64) - 1)]


@attempt("removing a scope in use")
def _():
    return exchange(framed(body("remove", "xfs", scope(MINE))))


@attempt("removing a scope whose last file is open and unlinked")
def _():
    place = VOLUME / MINE.hex
    descriptor = os.open(place / "held", os.O_CREAT | os.O_RDWR, 0o600)
    os.write(descriptor, b"x" * 100000)
    os.unlink(place / "held")
    reply = exchange(framed(body("remove", "xfs", scope(MINE))))
    os.close(descriptor)
    return reply


@attempt("a frame of length 0")
def _():
    return exchange(u32(0))


@attempt("a frame of 4,097 bytes")
def _():
    return exchange(u32(4097) + bytes([1]) + b"\0" * 4096)


@attempt("a frame of 4 GiB less one byte, announced")
def _():
    return exchange(u32((1 << 32) - 1) + b"\1" * 65536)


@attempt("a frame of 4,096 bytes of zeros")
def _():
    return exchange(framed(b"\0" * 4095))


@attempt("every truncation of a right frame, ended there")
def _():
    whole = framed(body("set_limit", "xfs", scope(MINE), u64(1 << 20)))
    return [exchange(whole[:size], finish=True) for size in range(len(whole))]


@attempt("every truncation with the length to match")
def _():
    content = body("set_limit", "xfs", scope(MINE), u64(1 << 20))
    return [exchange(framed(content[:size])) for size in range(len(content))]


@attempt("one byte left over")
def _():
    return [exchange(framed(body("describe", "xfs", scope(MINE)) + extra)) for extra in (b"\0", b"\xff")]


@attempt("two requests in one frame")
def _():
    return exchange(framed(body("status") + body("remove", "xfs", scope(MINE))))


@attempt("unknown requests: 6 to 70 and the largest")
def _():
    rest = text("xfs") + scope(MINE) + u64(0)
    return [exchange(framed(u32(kind) + rest)) for kind in (*range(6, 71), (1 << 32) - 1)]


@attempt("all other versions")
def _():
    return [exchange(framed(body("remove", "xfs", scope(MINE)), version=version))
            for version in (0, *range(2, 256, 9), 255)]


@attempt("a text that claims 2^64-1 bytes")
def _():
    return [exchange(framed(u32(3) + u64(size) + b"xfs" + scope(MINE)))
            for size in ((1 << 64) - 1, 1 << 63, 1 << 32, 4096, 64)]


@attempt("every bit of a describing frame turned over")
def _():
    whole, replies = framed(body("describe", "xfs", scope(MINE))), []
    for bit in range(len(whole) * 8):
        twisted = bytearray(whole)
        twisted[bit // 8] ^= 1 << bit % 8
        replies.append(exchange(bytes(twisted), finish=True))
    return replies


@attempt("2,000 frames of random bytes")
def _():
    chance, replies = random.Random(3), set()
    for _ in range(2000):
        replies.add(str(exchange(framed(chance.randbytes(chance.randrange(1, 60))), finish=True)))
    return sorted(replies)


@attempt("half a length, held open")
def _():
    with Connection(SOCKET) as connection:
        connection.send(b"\x10\0")
        return held(connection)


@attempt("half a frame, held open")
def _():
    with Connection(SOCKET) as connection:
        connection.send(framed(body("describe", "xfs", scope(MINE)))[:20])
        return held(connection)


@attempt("a frame at one byte a second")
def _():
    with Connection(SOCKET) as connection:
        try:
            for byte in framed(body("describe", "xfs", scope(MINE))):
                connection.send(bytes([byte]))
                time.sleep(1)
        except Closed:
            return "closed"
        return connection.receive()


def held(connection, patience=9):
    """How long the helper bears it; longer than `patience` is a failure."""
    connection.socket.settimeout(patience)
    started = time.monotonic()
    try:
        return connection.receive()
    except Closed:
        return f"closed after {time.monotonic() - started:.1f} s"


@attempt("40 silent connections")
def _():
    connections, refused = [], 0
    for _ in range(40):
        try:
            connections.append(Connection(SOCKET, patience=1))
        except OSError:
            refused += 1
    time.sleep(1)
    for connection in connections:
        connection.socket.close()
    return f"{len(connections)} opened, {refused} refused"


@attempt("1,000 connections closed at once")
def _():
    refused = 0
    for _ in range(1000):
        try:
            Connection(SOCKET).socket.close()
        except BlockingIOError:
            refused += 1
    return f"{refused} of 1000 refused"


@attempt("10,000 requests without reading a reply")
def _():
    request = framed(body("list", "xfs", b"\0"))
    sent = 0
    with Connection(SOCKET, patience=8) as connection:
        try:
            while sent < 10000:
                connection.send(request)
                sent += 1
        except (Closed, TimeoutError):
            pass
    return f"{sent} sent"


@attempt("requests as fast as replies come, for three seconds")
def _():
    replies, end = {}, time.monotonic() + 3
    while time.monotonic() < end:
        try:
            with Connection(SOCKET) as connection:
                while time.monotonic() < end:
                    key = str(connection.ask("describe", "xfs", scope(MINE)))
                    replies[key] = replies.get(key, 0) + 1
        except Closed:
            replies["closed"] = replies.get("closed", 0) + 1
    return replies


@attempt("descriptors passed along with a request")
def _():
    replies = []
    for _ in range(20):
        with Connection(SOCKET) as connection:
            files = array.array("i", [os.open("/dev/null", os.O_RDWR) for _ in range(100)])
            data = framed(body("describe", "xfs", scope(MINE)))
            connection.socket.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, files)])
            for file in files:
                os.close(file)
            try:
                replies.append(connection.receive())
            except Closed:
                replies.append("closed")
    return replies


@attempt("the agent's own connection, shut down for writing at once")
def _():
    return exchange(framed(body("create", "xfs", scope(MINE), u64(1 << 20))), finish=True)


@attempt("urgent data")
def _():
    with Connection(SOCKET) as connection:
        try:
            connection.socket.send(b"!", socket.MSG_OOB)
            connection.send(framed(body("status")))
            return connection.receive()
        except (OSError, Closed) as error:
            return str(error)


@attempt("another user with the socket's group", uid=STRANGER)
def _():
    return exchange(framed(body("remove", "xfs", scope(MINE))))


@attempt("another user without the socket's group", uid=STRANGER, gid=STRANGER)
def _():
    try:
        return exchange(framed(body("remove", "xfs", scope(MINE))))
    except PermissionError as error:
        return str(error)


@attempt("root", uid=0, gid=0)
def _():
    return exchange(framed(body("remove", "xfs", scope(MINE))))


@attempt("another user's connection handed to the agent", uid=0, gid=0)
def _():
    connection = Connection(SOCKET)
    os.setresuid(UNPRIVILEGED, UNPRIVILEGED, UNPRIVILEGED)
    with connection:
        try:
            connection.send(framed(body("create", "xfs", scope(ABSENT), u64(1 << 20))))
            return connection.receive()
        except Closed:
            return "closed"


@attempt("another user who is the agent's uid in a user namespace of its own", uid=STRANGER)
def _():
    unshare(NEW_USER)
    write("/proc/self/setgroups", "deny")
    write("/proc/self/uid_map", f"{UNPRIVILEGED} {STRANGER} 1")
    return exchange(framed(body("remove", "xfs", scope(MINE))))


@attempt("root of a user and mount namespace of its own, with a mount in the scope's place")
def _():
    uid = os.getuid()
    unshare(NEW_USER | NEW_MOUNTS)
    write("/proc/self/setgroups", "deny")
    write("/proc/self/uid_map", f"0 {uid} 1")
    libc().mount(str(OTHER).encode(), str(VOLUME).encode(), None, BIND, None)
    return exchange(framed(body("set_limit", "xfs", scope(MINE), u64(1 << 20))))


def libc():
    return ctypes.CDLL(None, use_errno=True)


def unshare(flags):
    if libc().unshare(flags) != 0:
        raise OSError("no namespaces here")
    # Who changed its uid is not dumpable, and then root owns its /proc entry.
    libc().prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)


def write(path, content):
    with open(path, "w") as file:
        file.write(content)


@attempt("killing, tracing and reading the helper")
def _():
    pid = helper_pid()
    outcomes = []
    for action in (
        lambda: os.kill(pid, 9),
        lambda: os.kill(pid, 19),
        lambda: open(f"/proc/{pid}/mem", "r+b"),
        lambda: os.listdir(f"/proc/{pid}/fd"),
        lambda: os.readlink(f"/proc/{pid}/cwd"),
    ):
        try:
            action()
            outcomes.append("allowed")
        except PermissionError:
            outcomes.append("refused")
    assert "allowed" not in outcomes, outcomes
    return outcomes


def helper_pid():
    with Connection(SOCKET) as connection:
        credentials = connection.socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    # The socket was bound and listened on by whoever started the helper; the helper is the one that serves it.
    starter = struct.unpack("iII", credentials)[0]
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                if b"quota-helper\0serve" in open(f"/proc/{name}/cmdline", "rb").read():
                    if int(name) != starter:
                        return int(name)
            except OSError:
                pass
    raise OSError("no helper")


@attempt("writing the files, the configuration, the state and the socket's directory")
def _():
    outcomes = []
    for path in (PROJECTS, PROJID, CONFIG, STATE / "x", CONFIG.parent / "x", SOCKET.parent / "x"):
        try:
            open(path, "a").close()
            outcomes.append(f"{path} allowed")
        except PermissionError:
            pass
    for action in (lambda: os.unlink(SOCKET), lambda: os.listdir(STATE), lambda: os.rename(CONFIG, "/tmp/x")):
        try:
            action()
            outcomes.append("allowed")
        except PermissionError:
            pass
    assert not outcomes, outcomes


def replaced(make):
    """All requests while something else is in the scope's place; then the directory is put back."""
    place, aside = VOLUME / MINE.hex, VOLUME / "aside"
    os.rename(place, aside)
    try:
        make(place)
        return everything("xfs", scope(MINE))
    finally:
        if place.is_dir() and not place.is_symlink():
            os.rmdir(place)
        else:
            place.unlink(missing_ok=True)
        os.rename(aside, place)


@attempt("a link to another file system in the scope's place")
def _():
    return replaced(lambda place: place.symlink_to(OTHER))


@attempt("a link to another's project in the scope's place")
def _():
    return replaced(lambda place: place.symlink_to(VOLUME / "foreign"))


@attempt("a link to /etc in the scope's place")
def _():
    return replaced(lambda place: place.symlink_to("/etc"))


@attempt("a file in the scope's place")
def _():
    return replaced(lambda place: place.write_bytes(b""))


@attempt("a pipe in the scope's place")
def _():
    return replaced(os.mkfifo)


@attempt("nothing in the scope's place")
def _():
    return replaced(lambda place: None)


@attempt("directory and link changing places during requests")
def _():
    place, aside, stop = VOLUME / MINE.hex, VOLUME / "aside", threading.Event()

    def swap():
        while not stop.is_set():
            os.rename(place, aside)
            place.symlink_to(OTHER)
            place.unlink()
            os.rename(aside, place)

    swapper = threading.Thread(target=swap)
    swapper.start()
    try:
        return [everything("xfs", scope(MINE)) for _ in range(10)]
    finally:
        stop.set()
        swapper.join()


@attempt("a link in the place of a volume's directory that the agent may rename")
def _():
    place, aside = VOLUME / "inner", VOLUME / "inner.aside"
    os.rename(place, aside)
    try:
        place.symlink_to(OTHER)
        return everything("inner", scope(MINE))
    finally:
        place.unlink()
        os.rename(aside, place)


@attempt("files tagged with ids that the helper would hand out next")
def _():
    strays, replies = [], []
    start = exchange(framed(body("create", "xfs", scope(ABSENT), u64(0)))).id
    for number in range(start + 1, start + 40):
        path = VOLUME / f"stray{number}"
        path.write_bytes(b"x")
        tag(path, number)
        strays.append(path)
    for number in range(5):
        subject = scope(uuid.UUID(int=0x0C << 120 | number))
        reply = exchange(framed(body("create", "xfs", subject, u64(0))))
        assert isinstance(reply, wire.Project) and not start < reply.id < start + 40, f"{reply} shares a stray's id"
        replies.append(reply)
        exchange(framed(body("remove", "xfs", subject)))
    for path in strays:
        path.unlink()
    exchange(framed(body("remove", "xfs", scope(ABSENT))))
    return replies
