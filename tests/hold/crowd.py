"""A process of its own that opens thousands of connections at once and says how each was answered.

Arguments: port, number, seconds. Each connection waits to be told something, as a client does that sends its request a
moment later. Prints how many were served, refused with 503 and `Retry-After`, closed without a word, reset, or left
waiting, as JSON.
"""

import errno
import json
import resource
import select
import socket
import sys
import time
from collections import Counter


def begin(port, number):
    sock = socket.socket()
    sock.setblocking(False)
    sock.bind((f"127.0.1.{2 + number % 200}", 0))
    assert sock.connect_ex(("127.0.0.1", port)) in (0, errno.EINPROGRESS)
    return sock


def outcome(sock):
    """How the server answered, when it did."""
    try:
        data = sock.recv(4096)
    except BlockingIOError:
        return None
    except OSError:
        return "reset"
    if data.startswith(b"HTTP/1.1 503 ") and b"\r\nRetry-After: " in data:
        return "refused with 503 and Retry-After"
    return "served" if data else "closed"


def main():
    port, count, seconds = (int(argument) for argument in sys.argv[1:])
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    poll, waiting, told = select.epoll(), {}, Counter()
    deadline = time.monotonic() + seconds
    while (waiting or sum(told.values()) < count) and time.monotonic() < deadline:
        for _ in range(min(200, count - len(waiting) - sum(told.values()))):
            sock = begin(port, len(waiting) + sum(told.values()))
            waiting[sock.fileno()] = sock
            poll.register(sock, select.EPOLLIN)
        for descriptor, _ in poll.poll(0.05):
            if said := outcome(waiting[descriptor]):
                told[said] += 1
                poll.unregister(descriptor)
                waiting.pop(descriptor).close()
    told["left waiting"] += len(waiting)
    print(json.dumps(told))


main()
