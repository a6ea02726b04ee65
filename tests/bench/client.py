"""HTTP clients that cost next to nothing, so that the server is what is measured.

Replies are thrown away inside the kernel (MSG_TRUNC, tcp(7)), bodies come from memory by sendfile(2), and many
connections share one thread.
"""

import os
import select
import socket
import ssl
import struct
from urllib.parse import urlsplit

from .measure import MIB

DISCARD = bytearray(4 * MIB)
WORTH_WAKING = MIB


def address(url):
    parts = urlsplit(url)
    return parts.hostname, parts.port


def target(url):
    parts = urlsplit(url)
    return f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"


def request(method, url, body=b"", **headers):
    """The bytes of a request; underscores in the names of headers stand for hyphens."""
    lines = [f"{method} {target(url)} HTTP/1.1", f"Host: {urlsplit(url).netloc}"]
    if body:
        headers["Content_Length"] = len(body)
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def connect(url, context=None):
    sock = socket.create_connection(address(url))
    # A server that stops reading must not stop the measurement without a word. Not `settimeout`, which does not wait.
    for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
        sock.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", 60, 0))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return context.wrap_socket(sock) if context else sock


def insecure():
    """TLS without a look at the certificate, which the benchmark made itself."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def read_head(sock):
    """Status, headers by lower-case name, and what of the body came along."""
    data = b""
    while b"\r\n\r\n" not in data:
        more = sock.recv(65536)
        if not more:
            raise ConnectionError(f"closed after {data[:200]!r}")
        data += more
    head, _, rest = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return int(first.split()[1]), headers, rest


def discard(sock, length):
    """Reads so many bytes without looking at them."""
    if isinstance(sock, ssl.SSLSocket):
        read = lambda _: sock.recv_into(DISCARD)
    else:
        read = lambda most: sock.recv_into(DISCARD, most, socket.MSG_TRUNC)
    # On one machine the server's processor is the one that wakes the reader. Whether it does that for each packet is
    # chance, and then costs more than all else: so the reader asks to be woken for a lot at once (socket(7)).
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, WORTH_WAKING)
    while length > 2 * WORTH_WAKING:
        length -= received(read(min(length - WORTH_WAKING, len(DISCARD))), length)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)
    while length > 0:
        length -= received(read(min(length, len(DISCARD))), length)


def received(count, missing):
    if count == 0:
        raise ConnectionError(f"closed with {missing} bytes missing")
    return count


def exchange(sock, data, expected):
    """One request, its reply thrown away; the length of its body."""
    sock.sendall(data)
    status, headers, rest = read_head(sock)
    if status != expected:
        raise RuntimeError(f"status {status}: {rest[:300]!r}")
    length = int(headers.get("content-length", 0))
    discard(sock, length - len(rest))
    return length


def source(size):
    """A file in memory with bytes that do not compress."""
    fd = os.memfd_create("bench")
    block = os.urandom(MIB)
    for _ in range(0, size, MIB):
        os.write(fd, block)
    return fd


def send_body(sock, head, fd, size, expected):
    """One request with a body from a file."""
    sock.sendall(head)
    sent = 0
    while sent < size:
        sent += os.sendfile(sock.fileno(), fd, sent, size - sent)
    status, _, rest = read_head(sock)
    if status != expected:
        raise RuntimeError(f"status {status}: {rest[:300]!r}")


def many(data, url, connections, count, expected=200):
    """So many equal requests over so many connections at once, after two that tell how long a reply is.

    All replies must have the length of the first one. Returns the number of all requests.
    """
    with connect(url) as probe:
        probe.sendall(data)
        status, headers, rest = read_head(probe)
        if status != expected:
            raise RuntimeError(f"status {status}: {rest[:300]!r}")
        length = int(headers["content-length"])
        discard(probe, length - len(rest))
        probe.sendall(data)
        whole = length + len(peek_head(probe))
    poll = select.epoll()
    socks, missing = {}, {}
    for _ in range(connections):
        sock = connect(url)
        sock.setblocking(False)
        socks[sock.fileno()] = sock
        poll.register(sock.fileno(), select.EPOLLIN)
    begun = 0
    for fd, sock in socks.items():
        sock.send(data)
        missing[fd] = whole
        begun += 1
    done = 0
    while done < count:
        for fd, _ in poll.poll():
            sock = socks[fd]
            got = sock.recv_into(DISCARD, len(DISCARD), socket.MSG_TRUNC)
            if got == 0:
                raise ConnectionError("closed")
            missing[fd] -= got
            if missing[fd] == 0:
                done += 1
                if begun < count:
                    sock.send(data)
                    missing[fd] = whole
                    begun += 1
            elif missing[fd] < 0:
                raise RuntimeError("a reply is longer than the first one")
    for sock in socks.values():
        sock.close()
    return count + 2


def peek_head(sock):
    data = b""
    while b"\r\n\r\n" not in data:
        data += sock.recv(1)
    return data
