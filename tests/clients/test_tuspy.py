"""tuspy, the tus project's own Python client."""

import pytest
import requests
from tusclient.client import TusClient
from tusclient.exceptions import TusCommunicationError, TusUploadFailed
from tusclient.uploader import Uploader

from harness.folder import sha256
from harness.relay import BreakingRelay

CHUNK = 1 << 20


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 40 << 20])
def test_uploads(folder, make_file, size):
    source = make_file(size)
    uploader = Uploader(str(source), url=folder.upload_url("up.bin", size), chunk_size=CHUNK)
    uploader.upload()
    assert sha256(folder.path / "up.bin") == sha256(source)
    assert sha256(requests.get(folder.download_url("up.bin")).content) == sha256(source)


def test_uploads_in_one_request(folder, make_file):
    source = make_file(40 << 20)
    Uploader(str(source), url=folder.upload_url("one.bin", 40 << 20)).upload()
    assert sha256(folder.path / "one.bin") == sha256(source)


def test_checksums_of_the_chunks_are_verified(folder, make_file):
    source = make_file(3 * CHUNK + 5)
    url = folder.upload_url("sum.bin", 3 * CHUNK + 5)
    Uploader(str(source), url=url, chunk_size=CHUNK, upload_checksum=True).upload()
    assert sha256(folder.path / "sum.bin") == sha256(source)


def test_a_new_uploader_continues_a_paused_upload(folder, make_file):
    source = make_file(5 * CHUNK)
    url = folder.upload_url("paused.bin", 5 * CHUNK)
    Uploader(str(source), url=url, chunk_size=CHUNK).upload(stop_at=2 * CHUNK)
    assert not (folder.path / "paused.bin").exists()
    second = Uploader(str(source), url=url, chunk_size=CHUNK)
    assert second.offset == 2 * CHUNK
    second.upload()
    assert sha256(folder.path / "paused.bin") == sha256(source)


def test_retries_after_a_broken_connection(folder, make_file):
    source = make_file(20 << 20)
    with BreakingRelay(folder.upload_url("broken.bin", 20 << 20), up=7 << 20) as relay:
        uploader = Uploader(str(source), url=relay.url, retries=3, retry_delay=0)
        uploader.upload()
        assert relay.broken == 1
    assert sha256(folder.path / "broken.bin") == sha256(source)


def test_a_lost_last_reply_is_not_an_error(folder, make_file):
    source = make_file(CHUNK)
    url = folder.upload_url("lost.bin", CHUNK)
    Uploader(str(source), url=url).upload()
    # Another uploader asks for the offset, as after a lost 204, and finds nothing left to do.
    again = Uploader(str(source), url=url)
    assert again.offset == CHUNK
    again.upload()
    assert sha256(folder.path / "lost.bin") == sha256(source)


def test_creation_is_refused_with_405(agent, make_file):
    uploader = TusClient(agent.client + "/upload").uploader(str(make_file(10)))
    with pytest.raises(TusCommunicationError) as error:
        uploader.upload()
    assert error.value.status_code == 405


def test_a_forged_token_is_refused(folder, make_file):
    url = folder.upload_url("forged.bin", 10)
    with pytest.raises(TusCommunicationError) as error:
        Uploader(str(make_file(10)), url=url[:-4] + "AAAA")
    assert error.value.status_code == 400


def test_an_offset_that_lies_changes_nothing(folder, make_file):
    source = make_file(3 * CHUNK)
    url = folder.upload_url("lie.bin", 3 * CHUNK)
    uploader = Uploader(str(source), url=url, chunk_size=CHUNK)
    uploader.upload_chunk()
    uploader.offset = 0
    with pytest.raises(TusUploadFailed) as error:
        uploader.upload_chunk()
    assert error.value.status_code == 409
    Uploader(str(source), url=url, chunk_size=CHUNK).upload()
    assert sha256(folder.path / "lie.bin") == sha256(source)
