"""aiotusclient 0.1.4, driven as the Backend.AI client SDK drives it.

The SDK sends no HEAD at the start: 16 MiB PATCHes from offset 0, each on its own connection, and takes 204 alone for
success. Its own resume raises an AttributeError before it can ask us anything, so a resume here means what users do:
a new uploader that is told the offset.
"""

import asyncio
import time

import pytest
import requests
from aiotusclient.client import TusClient
from aiotusclient.exceptions import TusUploadFailed
from yarl import URL

from harness.folder import sha256
from harness.relay import BreakingRelay

CHUNK = 16 << 20


def upload(url, source, offset=0, checksum=False):
    async def run():
        with source.open("rb") as stream:
            uploader = TusClient().async_uploader(
                file_stream=stream, url=URL(url), upload_checksum=checksum, chunk_size=CHUNK, retries=0
            )
            uploader.offset = offset
            await uploader.upload()

    asyncio.run(run())


def settled_offset(url):
    """The offset once the agent has stored what it had received of the broken request."""
    offset, same = -1, 0
    while same < 6:
        time.sleep(0.3)
        now = int(requests.head(url).headers["Upload-Offset"])
        offset, same = now, same + 1 if now == offset else 0
    return offset


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 40 << 20])
def test_uploads(folder, make_file, size):
    source = make_file(size)
    upload(folder.upload_url("up.bin", size), source)
    assert sha256(folder.path / "up.bin") == sha256(source)
    assert sha256(requests.get(folder.download_url("up.bin")).content) == sha256(source)


def test_uploads_into_a_destination_folder(folder, make_file):
    source = make_file(100_000)
    upload(folder.upload_url("sub/up.bin", 100_000, dst_dir="into/here"), source)
    assert sha256(folder.path / "into/here/sub/up.bin") == sha256(source)


def test_uploads_with_checksums(folder, make_file):
    source = make_file(CHUNK + 1)
    upload(folder.upload_url("sum.bin", CHUNK + 1), source, checksum=True)
    assert sha256(folder.path / "sum.bin") == sha256(source)


def test_continues_after_a_broken_connection(folder, make_file):
    source = make_file(40 << 20)
    url = folder.upload_url("broken.bin", 40 << 20)
    with BreakingRelay(url, up=5 << 20) as relay, pytest.raises(TusUploadFailed):
        upload(relay.url, source)
    offset = settled_offset(url)
    assert 0 < offset < 5 << 20
    upload(url, source, offset)
    assert sha256(folder.path / "broken.bin") == sha256(source)


def test_starting_over_in_the_same_session_cannot_corrupt_the_file(folder, make_file):
    source = make_file(CHUNK + 1)
    url = folder.upload_url("over.bin", CHUNK + 1)
    requests.patch(url, source.read_bytes()[:1000], headers={"Upload-Offset": "0"}).raise_for_status()
    with pytest.raises(TusUploadFailed) as error:
        upload(url, source)
    assert error.value.status_code == 409
    upload(url, source, 1000)
    assert sha256(folder.path / "over.bin") == sha256(source)


def test_overwrites_an_existing_file(folder, make_file):
    (folder.path / "old.bin").write_bytes(b"old content that is longer than the new one")
    source = make_file(10)
    upload(folder.upload_url("old.bin", 10), source)
    assert sha256(folder.path / "old.bin") == sha256(source)
