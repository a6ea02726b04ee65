"""Downloads with plain HTTP: headers, ranges, conditions, resuming."""

import os
import random
import time

import pytest
import requests

from harness.folder import sha256
from harness.relay import BreakingRelay

DATA = random.Random(1000).randbytes(1000)


@pytest.fixture
def stored(folder):
    """A file that has not changed for an hour."""
    path = folder.path / "data.bin"
    path.write_bytes(DATA)
    age(path, 3600)
    return path


def age(path, seconds):
    then = time.time() - seconds
    os.utime(path, (then, then))


def get(url, **headers):
    return requests.get(url, headers={name.replace("_", "-"): value for name, value in headers.items()})


def test_sends_the_headers_that_clients_need(folder, stored):
    reply = get(folder.download_url("data.bin"))
    assert reply.status_code == 200
    assert reply.content == DATA
    expected = {
        "Content-Type": "application/octet-stream",
        "Content-Length": "1000",
        "Accept-Ranges": "bytes",
        "Content-Disposition": "attachment;filename=\"data.bin\"; filename*=UTF-8''data.bin",
    }
    assert {name: reply.headers.get(name) for name in expected} == expected
    assert reply.headers["ETag"].startswith('"')
    assert "Last-Modified" in reply.headers
    assert "Content-Encoding" not in reply.headers


@pytest.mark.parametrize(
    "asked, status, part",
    [
        ("bytes=0-9", 206, slice(0, 10)),
        ("bytes=0-0", 206, slice(0, 1)),
        ("bytes=990-", 206, slice(990, 1000)),
        ("bytes=-5", 206, slice(995, 1000)),
        ("bytes=-5000", 206, slice(0, 1000)),
        ("bytes=900-5000", 206, slice(900, 1000)),
        ("bytes=1000-", 416, slice(0)),
        ("bytes=9-5", 416, slice(0)),
        ("bytes=0-1,5-6", 416, slice(0)),
        ("bytes=one-two", 416, slice(0)),
        # A unit that isn't known is to be ignored (RFC 9110, section 14.2).
        ("lines=0-9", 200, slice(0, 1000)),
    ],
)
def test_ranges(folder, stored, asked, status, part):
    reply = get(folder.download_url("data.bin"), Range=asked)
    assert reply.status_code == status
    if status == 206:
        first, end, _ = part.indices(1000)
        assert reply.content == DATA[part]
        assert reply.headers["Content-Range"] == f"bytes {first}-{end - 1}/1000"
        assert reply.headers["Content-Length"] == str(end - first)
    elif status == 416:
        assert reply.headers["Content-Range"] == "bytes */1000"
    else:
        assert reply.content == DATA


@pytest.mark.parametrize("validator", ["Last-Modified", "ETag"])
def test_if_range_holds_while_the_file_is_unchanged(folder, stored, validator):
    url = folder.download_url("data.bin")
    mark = get(url).headers[validator]
    reply = get(url, Range="bytes=500-", If_Range=mark)
    assert (reply.status_code, reply.content) == (206, DATA[500:])


@pytest.mark.parametrize("validator", ["Last-Modified", "ETag"])
def test_if_range_sends_a_changed_file_from_its_start(folder, stored, validator):
    url = folder.download_url("data.bin")
    mark = get(url).headers[validator]
    changed = DATA[::-1]
    stored.write_bytes(changed)
    age(stored, 1800)
    reply = get(url, Range="bytes=500-", If_Range=mark)
    assert (reply.status_code, reply.content) == (200, changed)


def test_if_range_does_not_trust_the_date_of_a_file_changed_this_second(folder, stored):
    url = folder.download_url("data.bin")
    stored.write_bytes(DATA)
    mark = get(url).headers["Last-Modified"]
    reply = get(url, Range="bytes=500-", If_Range=mark)
    assert (reply.status_code, reply.content) == (200, DATA)


def test_a_known_file_is_not_sent_again(folder, stored):
    url = folder.download_url("data.bin")
    headers = get(url).headers
    assert get(url, If_None_Match=headers["ETag"]).status_code == 304
    assert get(url, If_Modified_Since=headers["Last-Modified"]).status_code == 304
    assert get(url, If_Match='"other"').status_code == 412


def test_head_tells_what_get_would_send(folder, stored):
    url = folder.download_url("data.bin")
    head, full = requests.head(url), get(url)
    assert head.status_code == 200
    names = ("Content-Length", "Content-Type", "Content-Disposition", "Accept-Ranges", "Last-Modified", "ETag")
    assert [head.headers.get(name) for name in names] == [full.headers.get(name) for name in names]


def test_a_compressed_neighbour_is_never_served_instead(folder, stored):
    for ending in ("gz", "br"):
        (folder.path / f"data.bin.{ending}").write_bytes(b"not the file that was asked for")
    reply = get(folder.download_url("data.bin"), Accept_Encoding="gzip, br, deflate")
    assert reply.content == DATA
    assert "Content-Encoding" not in reply.headers


def test_dst_dir_goes_between_the_folder_and_the_path(folder):
    folder.mkdir("deep/er")
    (folder.path / "deep/er/file.bin").write_bytes(DATA)
    assert get(folder.download_url("er/file.bin", dst_dir="deep")).content == DATA


@pytest.mark.parametrize("dst_dir", ["..", "../..", "/etc", "deep/../.."])
def test_dst_dir_cannot_leave_the_folder(folder, dst_dir):
    folder.mkdir("deep")
    (folder.path.parent / "outside.bin").write_bytes(DATA)
    reply = get(folder.download_url("outside.bin", dst_dir=dst_dir))
    assert reply.status_code in (400, 404)
    assert DATA not in reply.content


@pytest.mark.parametrize(
    "name, ascii_name, encoded",
    [
        ("한글.txt", ".txt", "%ED%95%9C%EA%B8%80.txt"),
        ('a "b" c.txt', 'a \\"b\\" c.txt', "a%20%22b%22%20c.txt"),
        ("line\nbreak", "linebreak", "line%0Abreak"),
    ],
)
def test_names_cannot_break_the_header(folder, name, ascii_name, encoded):
    (folder.path / name).write_bytes(DATA)
    reply = get(folder.download_url(name))
    assert reply.content == DATA
    assert reply.headers["Content-Disposition"] == f"attachment;filename=\"{ascii_name}\"; filename*=UTF-8''{encoded}"


def test_a_broken_download_resumes_where_it_broke(folder, make_file, tmp_path):
    source = make_file(40 << 20)
    stored = folder.path / "large.bin"
    stored.write_bytes(source.read_bytes())
    age(stored, 3600)
    with BreakingRelay(folder.download_url("large.bin"), down=11 << 20, breaks=2) as relay:
        received, statuses = resume_until_whole(relay.url)
        assert relay.broken == 2
    assert statuses == [200, 206, 206]
    assert sha256(received) == sha256(source)


def resume_until_whole(url):
    """Receives a file as the Backend.AI SDK does: go on with If-Range and Range until a body ends as announced."""
    received, statuses, mark = bytearray(), [], None
    while len(statuses) < 20:
        resume = {"If-Range": mark, "Range": f"bytes={len(received)}-"} if mark else {}
        with requests.get(url, headers=resume, stream=True) as reply:
            statuses.append(reply.status_code)
            mark = reply.headers["Last-Modified"]
            if reply.status_code == 200:
                received = bytearray()
            try:
                for piece in reply.iter_content(1 << 16):
                    received += piece
                return received, statuses
            except requests.exceptions.RequestException:
                continue
    raise AssertionError(f"not whole after {statuses}")


@pytest.mark.parametrize("missing", ["nothing.bin", "no/such/file"])
def test_a_missing_file_is_404(folder, missing):
    reply = get(folder.download_url(missing))
    assert reply.status_code == 404
    assert reply.headers["Content-Type"].startswith("application/problem+json")


def test_a_directory_without_archive_is_400(folder):
    folder.mkdir("directory")
    assert get(folder.download_url("directory")).status_code == 400


def test_an_upload_token_does_not_download(folder, stored):
    url = folder.upload_url("data.bin", 10).replace("/upload?", "/download?")
    assert get(url).status_code == 400
