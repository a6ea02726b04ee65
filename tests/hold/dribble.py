"""A process of its own that holds thousands of connections and sends one byte on each now and then.

Reads a list of `[port, text]` from the first line of its input: what each connection sends at once. Prints a line when
all are open. When its input ends, it prints what became of them.
"""

import json
import resource
import select
import socket
import sys
import time

PERIOD = 5


def connect(port, text, number):
    sock = socket.socket()
    # One address has too few ports for all of them.
    sock.bind((f"127.0.0.{2 + number % 200}", 0))
    sock.connect(("127.0.0.1", port))
    sock.sendall(text.encode())
    sock.setblocking(False)
    return sock


def main():
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    plan = json.loads(sys.stdin.readline())
    socks = [connect(port, text, number) for number, (port, text) in enumerate(plan)]
    print("open", flush=True)
    told = {"sent": 0, "cut": 0}
    step = max(len(plan) // (PERIOD * 20), 1)
    at, due = 0, time.monotonic()
    while not select.select([sys.stdin], [], [], max(due - time.monotonic(), 0))[0]:
        due += 1 / 20
        for number in range(at, min(at + step, len(plan))):
            try:
                socks[number].recv(4096, socket.MSG_DONTWAIT)
                raise ConnectionResetError
            except BlockingIOError:
                pass
            except OSError:
                # Cut off for being too slow; it comes again.
                told["cut"] += 1
                socks[number].close()
                socks[number] = connect(*plan[number], number)
            try:
                told["sent"] += socks[number].send(b"x")
            except OSError:
                pass
        at = 0 if at + step >= len(plan) else at + step
    print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()
