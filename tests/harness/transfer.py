"""Uploads by hand: one request each, so that a test sees every status and offset."""

import http.client
from urllib.parse import urlsplit
from urllib.request import urlopen


def request(method, url, body=None, timeout=120, **headers):
    """Status and headers of the reply."""
    target = urlsplit(url)
    connection = http.client.HTTPConnection(target.netloc, timeout=timeout)
    headers = {name.replace("_", "-"): str(value) for name, value in headers.items()}
    connection.request(method, f"{target.path}?{target.query}", body, {"Tus-Resumable": "1.0.0", **headers})
    reply = connection.getresponse()
    reply.read()
    connection.close()
    return reply.status, reply.headers


def patch(url, offset, data, **options):
    """Sends bytes; the status, and the offset afterwards where the reply tells it."""
    status, headers = request(
        "PATCH", url, data, Content_Type="application/offset+octet-stream", Upload_Offset=offset, **options
    )
    told = headers["Upload-Offset"]
    return status, None if told is None else int(told)


def offset(url, **options):
    status, headers = request("HEAD", url, **options)
    return status, int(headers["Upload-Offset"] or -1)


def download(url):
    with urlopen(url, timeout=120) as reply:
        return reply.read()
