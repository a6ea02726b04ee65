"""One HTTP request on a connection of its own, and nothing done to its parts."""

import http.client
from urllib.parse import urlsplit


def request(method, url, body=None, headers=None, timeout=60):
    """Status, headers and body; what of a body arrives before its connection breaks."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=timeout)
    try:
        connection.request(method, f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/", body, headers or {})
        reply = connection.getresponse()
        try:
            data = reply.read()
        except http.client.IncompleteRead as broken:
            data = broken.partial
        return reply.status, reply.headers, data
    finally:
        connection.close()
