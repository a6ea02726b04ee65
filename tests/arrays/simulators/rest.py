"""The HTTPS server under every simulated array: requests in, replies out, faults in between, every call counted."""

import json
import re
import socket
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, urlsplit

from . import faults, tls


class Request:
    """One call as the array sees it. `parameters` holds the last value of each query name, `repeated` all of them."""

    def __init__(self, method, target, headers, body):
        self.method = method
        self.target = target
        self.headers = headers
        self.body = body
        parts = urlsplit(target)
        self.path = parts.path
        self.repeated = parse_qsl(parts.query, keep_blank_values=True)
        self.parameters = dict(self.repeated)

    def json(self):
        """The body as a JSON object; an empty body is an empty one. Raises ValueError."""
        value = json.loads(self.body) if self.body.strip() else {}
        if not isinstance(value, dict):
            raise ValueError("the body is not a JSON object")
        return value


class Reply:
    """A reply; `value` becomes its JSON body unless it is bytes."""

    def __init__(self, status, value=None, headers=None, content_type="application/json"):
        self.status = status
        self.body = value if isinstance(value, bytes) else b"" if value is None else json.dumps(value).encode()
        self.headers = {"Content-Type": content_type, **(headers or {})}
        self.promised = None
        self.seconds_per_byte = 0


class Calls:
    """Counts calls by route, and how many were in flight at once."""

    def __init__(self):
        self.lock = threading.Lock()
        self.reset()

    def reset(self):
        with self.lock:
            self.log = []
            self.connections = 0
            self.running = 0
            self.most_at_once = 0

    def begin(self, entry):
        with self.lock:
            self.log.append(entry)
            self.running += 1
            self.most_at_once = max(self.most_at_once, self.running)

    def end(self):
        with self.lock:
            self.running -= 1

    def summary(self):
        with self.lock:
            routes = Counter(f"{entry['method']} {entry['route']}" for entry in self.log)
            return {
                "total": len(self.log),
                "routes": dict(routes),
                "connections": self.connections,
                "most_at_once": self.most_at_once,
                "log": self.log[-2000:],
            }


class Array:
    """What every simulated array has: routes, a lock over its state, settings, faults and a count of calls.

    A subclass sets `routes` to (method, pattern, handler) triples; a pattern's `{}` stands for one path segment, which
    the handler receives as an argument. A handler returns a Reply.
    """

    settings = {}

    def __init__(self):
        self.lock = threading.RLock()
        self.settings = dict(self.settings)
        self.faults = faults.Switchboard()
        self.calls = Calls()
        self.table = [
            (method, re.compile("".join("([^/]+)" if part == "{}" else re.escape(part) for part in re.split(r"({})", pattern))), pattern, handler)
            for method, pattern, handler in self.routes()
        ]

    def routes(self):
        raise NotImplementedError

    def no_route(self, request):
        """The reply to a call that no route takes."""
        raise NotImplementedError

    def admit(self, request):
        """A refusal, or None when the caller may do this."""
        return None

    def internal(self, error):
        """The reply when a handler raised: a mistake of the simulator's, made visible."""
        return Reply(500, {"simulator": repr(error)})

    def find(self, request):
        for method, expression, pattern, handler in self.table:
            if method == request.method and (match := expression.fullmatch(request.path)):
                return pattern, handler, match.groups()
        return None, None, ()

    def dispatch(self, request, handler, arguments):
        if refusal := self.admit(request):
            return refusal
        if handler is None:
            return self.no_route(request)
        return handler(request, *arguments)

    def serve(self, request, trap_url):
        """The reply to the request, faults included."""
        pattern, handler, arguments = self.find(request)
        entry = {"method": request.method, "route": pattern or request.path, "target": request.target, "at": time.time()}
        self.calls.begin(entry)
        try:
            subject = f"{request.method} {request.target}"
            for fault in self.faults.striking(subject, faults.BEFORE):
                if (early := faults.before(fault, trap_url)) is not None:
                    status, headers, body = early
                    entry["status"] = status
                    return Reply(status, body, headers)
            try:
                reply = self.dispatch(request, handler, arguments)
            except Exception as error:  # noqa: BLE001 - the test must see it
                reply = self.internal(error)
            for fault in self.faults.striking(subject, faults.AFTER):
                faults.after(fault, reply)
            entry["status"] = reply.status
            return reply
        finally:
            self.calls.end()


class Handler(BaseHTTPRequestHandler):
    """Reads one request, asks the array, writes the reply in one piece (or byte by byte)."""

    protocol_version = "HTTP/1.1"
    timeout = 120

    def handle_any(self):
        length = int(self.headers.get("Content-Length") or 0)
        request = Request(self.command, self.path, self.headers, self.rfile.read(length))
        try:
            reply = self.server.array.serve(request, self.server.trap_url)
            self.send(reply)
        except faults.Dropped:
            self.close_connection = True
        except OSError:
            # The client went away or gave up.
            self.close_connection = True

    do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = do_HEAD = handle_any

    def send(self, reply):
        length = len(reply.body) if reply.promised is None else reply.promised
        lines = [f"HTTP/1.1 {reply.status} {self.responses.get(reply.status, ('',))[0]}"]
        lines += [f"{name}: {value}" for name, value in reply.headers.items()]
        head = "\r\n".join([*lines, f"Content-Length: {length}", "", ""]).encode()
        if reply.seconds_per_byte:
            self.wfile.write(head)
            for index in range(len(reply.body)):
                self.wfile.write(reply.body[index : index + 1])
                time.sleep(reply.seconds_per_byte)
        else:
            self.wfile.write(head + reply.body)
        if reply.promised is not None:
            self.close_connection = True

    def log_message(self, *_):
        """Calls are recorded by the array; nothing goes to stderr."""


class TlsServer(ThreadingHTTPServer):
    """HTTPS on loopback; the certificate can be changed while it runs."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, array, certificates, port=0, plain=False):
        self.array = array
        self.certificates = certificates
        self.plain = plain
        self.trap_url = ""
        self.open_connections = set()
        if not plain:
            self.show("good")
        super().__init__(("127.0.0.1", port), Handler)

    def show(self, kind):
        """Shows this certificate from now on; connections that exist are closed."""
        self.context = tls.server_context(self.certificates, kind)
        self.disconnect()

    def disconnect(self):
        for connection in list(self.open_connections):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def process_request_thread(self, request, client_address):
        # The handshake belongs to the connection's thread: a client that refuses the certificate must not stop others.
        try:
            request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if not self.plain:
                request.settimeout(30)
                request = self.context.wrap_socket(request, server_side=True)
        except OSError:
            request.close()
            return
        with self.array.calls.lock:
            self.array.calls.connections += 1
        self.open_connections.add(request)
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.open_connections.discard(request)

    def handle_error(self, *_):
        """A connection that a client or a fault broke is no news."""

    @property
    def url(self):
        return f"{'http' if self.plain else 'https'}://127.0.0.1:{self.server_address[1]}"
