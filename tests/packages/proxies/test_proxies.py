"""Transfers through the packaged samples: nothing is kept aside by the proxy, and nothing that it may not know is logged."""

import hashlib
import os
import subprocess

import pytest

from harness.folder import Folder, sha256

from .conftest import NODE

GIB = 1 << 30
# What a proxy may have in memory while 1 GiB goes through.
MOST_KIB = 150 * 1024


@pytest.fixture
def folder(agent, proxy):
    return Folder(agent)


def curl(proxy, *arguments):
    done = subprocess.run(["curl", "-sS", "--cacert", proxy.certificate, *arguments], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def downloaded(proxy, url):
    """The digest of what a download gives, and its size."""
    digest, size = hashlib.sha256(), 0
    with subprocess.Popen(["curl", "-sS", "--fail", "--cacert", proxy.certificate, url], stdout=subprocess.PIPE) as running:
        while block := running.stdout.read(1 << 20):
            digest.update(block)
            size += len(block)
    assert running.returncode == 0
    return digest.hexdigest(), size


def check_proxy(proxy):
    assert not proxy.kept_something_aside()
    assert proxy.resident_kib() < MOST_KIB, proxy.resident_kib()


def test_tus_js_client_uploads_a_gibibyte(proxy, folder, large):
    done = subprocess.run(["node", NODE / "tus_upload.mjs", folder.upload_url("large", GIB), large], capture_output=True, text=True,
                          timeout=300, env={**os.environ, "NODE_EXTRA_CA_CERTS": str(proxy.certificate)})
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > GIB // (15 << 20)
    assert sha256(folder.path / "large") == sha256(large)
    check_proxy(proxy)
    (folder.path / "large").unlink()


def test_curl_uploads_a_gibibyte_in_one_request_and_downloads_it(proxy, folder, large):
    url = folder.upload_url("large", GIB)
    status = curl(proxy, "-X", "PATCH", "-T", large, "-H", "Upload-Offset: 0", "-H", "Tus-Resumable: 1.0.0", "-H",
                  "Content-Type: application/offset+octet-stream", "-H", "Expect:", "-o", "/dev/null", "-w", "%{http_code}", url)
    assert status == "204"
    assert downloaded(proxy, folder.download_url("large")) == (sha256(large), GIB)
    check_proxy(proxy)
    (folder.path / "large").unlink()


def test_what_arrived_before_a_break_is_kept(proxy, folder, large):
    """The proxy hands bytes on as they come, so that an upload resumes near to where its connection broke."""
    url = folder.upload_url("large", GIB)
    with large.open("rb") as source:
        sending = subprocess.Popen(
            ["curl", "-sS", "--cacert", proxy.certificate, "-X", "PATCH", "-T", "-", "--limit-rate", "40M", "-H", "Upload-Offset: 0", "-H",
             "Tus-Resumable: 1.0.0", "-H", "Content-Type: application/offset+octet-stream", "-H", "Expect:", url],
            stdin=source, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        with pytest.raises(subprocess.TimeoutExpired):
            sending.wait(3)
        sending.kill()
        sending.wait()
    headers = curl(proxy, "-I", "-H", "Tus-Resumable: 1.0.0", url).lower()
    offset = int(headers.partition("upload-offset:")[2].split()[0])
    assert 20 << 20 < offset < GIB
    check_proxy(proxy)


def test_plain_http_is_sent_to_https(proxy):
    headers = curl(proxy, "-I", proxy.plain_url + "/download?token=x").lower()
    assert headers.startswith("http/1.1 308") and "location: https://" in headers


def test_a_url_as_long_as_the_agent_takes_reaches_it(proxy):
    url = f"{proxy.url}/download?token={'a' * (15 << 10)}"
    reply = curl(proxy, "-D", "-", url)
    assert '"type"' in reply and "414" not in reply.splitlines()[0], reply


def test_no_token_is_in_the_proxys_log(proxy, agent, folder):
    (folder.path / "small").write_bytes(b"small")
    url = folder.download_url("small")
    token = url.partition("token=")[2]
    assert downloaded(proxy, url)[1] == 5
    curl(proxy, f"{proxy.url}/download?token={token[:-3]}xyz")
    logged = proxy.everything_logged()
    assert "/download" in logged and "token=" not in logged and token[:40] not in logged
