"""Downloads that nginx sends itself, with the sample configuration and a real nginx."""

import subprocess
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest

from harness.agent import Agent, free_ports
from harness.folder import Folder

SAMPLE = Path(__file__).parents[2] / "packaging/examples/nginx-accel.conf"
TABLES = '[download]\naccel-redirect = "/storage-agent-volumes"\n'
CONFIG = """\
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ }}
http {{
    access_log {folder}/access.log;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    upstream storage_agent_client {{ server {agent}; }}
    server {{
        listen 127.0.0.1:{port};
        location / {{ proxy_pass http://storage_agent_client; }}
        {sample}
    }}
}}
"""


@contextmanager
def nginx(agent, folder):
    """nginx in front of the agent; its address."""
    (port,) = free_ports(1)
    sample = SAMPLE.read_text().replace("/mnt/vfolders/", f"{agent.volume}/")
    config = folder / "nginx.conf"
    config.write_text(CONFIG.format(folder=folder, agent=agent.client.removeprefix("http://"), port=port, sample=sample))
    # As the user that it was started by: one who can read the volume.
    process = subprocess.Popen(["nginx", "-g", "user root;", "-c", config, "-e", folder / "start.log"])
    try:
        for _ in range(100):
            if (folder / "nginx.pid").exists():
                break
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    with Agent(tables=TABLES) as agent, nginx(agent, tmp_path_factory.mktemp("nginx")) as proxy:
        yield agent, proxy


@pytest.fixture
def folder(site):
    return Folder(site[0])


def fetch(site, url, method="GET", base=None, **headers):
    """Status, headers and body of a request through nginx, and what the agent logged of it."""
    agent, proxy = site
    before = len(agent.log.read_text().splitlines())
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(url.replace(agent.client, base or proxy), method=method, headers=names)
    try:
        with urllib.request.urlopen(request, timeout=30) as reply:
            got = reply.status, reply.headers, reply.read()
    except urllib.error.HTTPError as error:
        got = error.code, error.headers, error.read()
    time.sleep(0.05)
    return *got, "\n".join(agent.log.read_text().splitlines()[before:])


def test_nginx_sends_what_the_agent_allows(site, folder):
    content = bytes(range(256)) * 4000
    name = "a file, 100% dö'ne.bin"
    (folder.path / "sub").mkdir()
    (folder.path / "sub" / name).write_bytes(content)
    url = folder.download_url(f"sub/{name}")
    status, headers, body, log = fetch(site, url, Origin="https://hub.example.com")
    assert (status, body) == (200, content)
    # The agent sent nothing but a head.
    assert "bytes_out=0" in log
    assert headers["Content-Disposition"].startswith("attachment;filename=")
    assert headers["Content-Type"] == "application/octet-stream"
    assert headers["Access-Control-Allow-Origin"] == "https://hub.example.com"
    assert headers["X-Accel-Redirect"] is None
    status, headers, body, log = fetch(site, url, Range="bytes=1000-70000")
    assert (status, body) == (206, content[1000:70001])
    assert headers["Content-Range"] == f"bytes 1000-70000/{len(content)}"
    status, headers, body, _ = fetch(site, url, Range="bytes=1000-70000", If_Range=headers["ETag"])
    assert (status, body) == (206, content[1000:70001])
    status, headers, _, _ = fetch(site, url, method="HEAD")
    assert (status, int(headers["Content-Length"])) == (200, len(content))


def test_the_agent_still_sends_what_is_reached_through_a_link(site, folder):
    (folder.path / "real").write_bytes(b"x" * 100_000)
    (folder.path / "link").symlink_to("real")
    status, _, body, log = fetch(site, folder.download_url("link"))
    assert (status, body) == (200, b"x" * 100_000)
    assert "bytes_out=100000" in log


def test_a_link_out_of_the_folder_is_no_file_to_either(site, folder):
    secret = site[0].folder / "secret"
    secret.write_text("secret")
    (folder.path / "out").symlink_to(secret)
    status, _, body, _ = fetch(site, folder.download_url("out"))
    assert status == 404 and b"secret" not in body


def test_nobody_but_the_proxy_learns_where_a_file_lies(site, folder):
    agent, proxy = site
    (folder.path / "file").write_bytes(b"y" * 100_000)
    url = folder.download_url("file")
    status, headers, body, _ = fetch(site, url, base=agent.client)
    assert (status, body, headers["X-Accel-Redirect"]) == (200, b"y" * 100_000, None)
    inside = f"{proxy}/storage-agent-volumes/local/{folder.path.relative_to(agent.volume)}/file"
    assert fetch(site, inside)[0] == 404


def test_a_token_that_is_over_gets_nothing(site, folder):
    (folder.path / "file").write_bytes(b"z")
    url = folder.download_url("file")
    status, headers, _, _ = fetch(site, url[:-3] + "AAA")
    assert status in (400, 401, 403) and headers["X-Accel-Redirect"] is None
