"""The quota helper's protocol, written a second time from its description: a compromised agent sends what it likes.

Nothing here comes from the code under test, so that both ends agreeing on a mistake shows.
"""

import socket
import struct
from dataclasses import dataclass

VERSION = 1
LARGEST = 4096
REQUESTS = ("status", "create", "set_limit", "describe", "remove", "list")
REFUSALS = (
    "Version Malformed UnknownVolume NotFound InvalidLimit NotMounted NoQuota InUse Exhausted FilesDamaged "
    "ToolFailed StorageFailed TooFast"
).split()


@dataclass(frozen=True)
class Refused:
    """A refusal: its kind, and a sentence for people."""

    kind: str
    message: str


@dataclass(frozen=True)
class Project:
    """A project's number, its limit and use in bytes, and whether the request made it."""

    id: int
    limit: int
    used: int
    created: bool


def u32(number):
    return struct.pack("<I", number)


def u64(number):
    return struct.pack("<Q", number & (1 << 64) - 1)


def text(value):
    data = value if isinstance(value, bytes) else value.encode()
    return u64(len(data)) + data


def scope(uid):
    """A quota scope's subject."""
    return u32(0) + uid.bytes


def folder(uid):
    """The subject of a folder outside of scopes."""
    return u32(1) + uid.bytes


def body(name, volume=None, subject=b"", *rest):
    """A request without version and length."""
    parts = [u32(REQUESTS.index(name)), b"" if volume is None else text(volume), subject, *rest]
    return b"".join(parts)


def framed(content, version=VERSION, length=None):
    """A frame around a request; version and length may lie."""
    payload = bytes([version]) + content
    return u32(len(payload) if length is None else length) + payload


class Reader:
    """Takes a reply apart from its front."""

    def __init__(self, data):
        self.data = data

    def take(self, layout):
        (value,) = struct.unpack_from("<" + layout, self.data)
        self.data = self.data[struct.calcsize("<" + layout) :]
        return value

    def text(self):
        size = self.take("Q")
        value, self.data = self.data[:size], self.data[size:]
        assert len(value) == size, "a text longer than its frame"
        return value.decode()

    def optional(self, read):
        return read() if self.take("B") else None


def reply(payload):
    """The value of a reply's payload; all of its bytes must have a meaning."""
    reader = Reader(payload)
    assert reader.take("B") == VERSION
    kind = reader.take("I")
    if kind == 0:
        version = reader.text()
        value = (version, {reader.text(): reader.optional(reader.text) for _ in range(reader.take("Q"))})
    elif kind == 1:
        value = Project(reader.take("I"), reader.take("Q"), reader.take("Q"), bool(reader.take("B")))
    elif kind == 2:
        value = "removed"
    elif kind == 3:
        listed = [
            (reader.take("I"), reader.take("16s"), reader.take("I"), reader.take("Q"))
            for _ in range(reader.take("Q"))
        ]
        value = (listed, bool(reader.take("B")))
    else:
        assert kind == 4, f"a reply of the unknown kind {kind}"
        value = Refused(REFUSALS[reader.take("I")], reader.text())
    assert not reader.data, f"leftover bytes {reader.data!r}"
    return value


class Closed(Exception):
    """The helper ended the connection without a reply."""


class Connection:
    """A connection to the helper's socket."""

    def __init__(self, path, patience=10):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(patience)
        self.socket.connect(str(path))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, data):
        try:
            self.socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            raise Closed from None

    def receive(self):
        """The next reply."""
        (length,) = struct.unpack("<I", self.exactly(4))
        assert 0 < length <= LARGEST, f"a reply of {length} bytes"
        return reply(self.exactly(length))

    def exactly(self, size):
        data = b""
        while len(data) < size:
            try:
                piece = self.socket.recv(size - len(data))
            except ConnectionResetError:
                piece = b""
            if not piece:
                raise Closed
            data += piece
        return data

    def ask(self, name, volume=None, subject=b"", *rest):
        """Sends one right request and returns its reply."""
        self.send(framed(body(name, volume, subject, *rest)))
        return self.receive()
