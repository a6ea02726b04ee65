"""A TCP relay that breaks connections, to see how clients and the agent come back from it."""

import socket
import threading
from urllib.parse import urlsplit, urlunsplit

FOREVER = 1 << 62


class BreakingRelay:
    """Relays to the agent and closes its first connections after so many bytes in one direction.

    `up` counts bytes towards the agent, `down` bytes towards the client, headers included. Connections after the first
    `breaks` pass unharmed.
    """

    def __init__(self, url, up=FOREVER, down=FOREVER, breaks=1):
        self.target = urlsplit(url)
        self.limits = {"up": up, "down": down}
        self.breaks = breaks
        self.broken = 0

    def __enter__(self):
        self.listener = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self.accept, daemon=True).start()
        address = f"127.0.0.1:{self.listener.getsockname()[1]}"
        self.url = urlunsplit(self.target._replace(netloc=address))
        return self

    def __exit__(self, *_):
        self.listener.close()

    def accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            agent = socket.create_connection((self.target.hostname, self.target.port))
            for source, sink, direction in ((client, agent, "up"), (agent, client, "down")):
                threading.Thread(target=self.pump, args=(source, sink, direction), daemon=True).start()

    def pump(self, source, sink, direction):
        left = self.limits[direction] if self.broken < self.breaks else FOREVER
        try:
            while left and (data := source.recv(min(left, 65536))):
                sink.sendall(data)
                left -= len(data)
        except OSError:
            pass
        if not left:
            self.broken += 1
        for each in (source, sink):
            try:
                # Wakes the other direction's thread, which a mere close() would leave in recv().
                each.shutdown(socket.SHUT_RDWR if not left else socket.SHUT_WR)
            except OSError:
                pass
        if not left or direction == "down":
            source.close()
            sink.close()
