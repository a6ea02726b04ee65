"""curl, as people use it from a shell."""

import base64
import hashlib
import os
import subprocess
import time

import pytest

from harness.folder import sha256

OCTETS = "Content-Type: application/offset+octet-stream"


def curl(*arguments, check=True, **options):
    command = ["curl", "-sS", "--max-time", "60", *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, check=False, **options)
    if check:
        assert result.returncode == 0, result.stderr.decode(errors="replace")
    return result


def status(*arguments, **options):
    return int(curl("-o", "/dev/null", "-w", "%{http_code}", *arguments, **options).stdout)


def patch(url, source, offset, *more, **options):
    return status("-X", "PATCH", "-H", f"Upload-Offset: {offset}", "-H", OCTETS, "--data-binary", f"@{source}", *more, url, **options)


def headers(*arguments):
    """The reply's headers, names in lower case, and the status under the empty name."""
    lines = curl("-D", "-", "-o", "/dev/null", *arguments).stdout.decode().strip().splitlines()
    fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
    return {"": int(lines[0].split()[1]), **fields}


@pytest.fixture
def stored(folder, make_file):
    """A source and its copy in the vfolder, unchanged for an hour."""
    source = make_file(5_000_000)
    path = folder.path / "stored.bin"
    path.write_bytes(source.read_bytes())
    then = time.time() - 3600
    os.utime(path, (then, then))
    return source


def test_a_large_patch_waits_for_100_continue(folder, make_file):
    source = make_file(40 << 20)
    url = folder.upload_url("up.bin", 40 << 20)
    result = curl("-v", "-X", "PATCH", "-H", "Upload-Offset: 0", "-H", OCTETS, "-H", "Expect: 100-continue",
                  "--expect100-timeout", "30", "--data-binary", f"@{source}", url)
    assert b"HTTP/1.1 100 Continue" in result.stderr
    assert b"HTTP/1.1 204" in result.stderr
    assert sha256(folder.path / "up.bin") == sha256(source)


def test_a_chunked_patch_is_stored(folder, make_file):
    source = make_file(3_000_000)
    with source.open("rb") as stream:
        code = status("-X", "PATCH", "-H", "Upload-Offset: 0", "-H", OCTETS, "-T", "-",
                      folder.upload_url("chunked.bin", 3_000_000), stdin=stream)
    assert code == 204
    assert sha256(folder.path / "chunked.bin") == sha256(source)


def test_pieces_make_up_the_file(folder, make_file, tmp_path):
    source = make_file(300_001)
    url = folder.upload_url("pieces.bin", 300_001)
    for offset in range(0, 300_001, 100_000):
        piece = tmp_path / "piece"
        piece.write_bytes(source.read_bytes()[offset : offset + 100_000])
        assert headers("-I", url)["upload-offset"] == str(offset)
        assert patch(url, piece, offset) == 204
    assert sha256(folder.path / "pieces.bin") == sha256(source)


def test_too_much_is_refused_before_it_is_read(folder, make_file):
    url = folder.upload_url("small.bin", 10)
    assert patch(url, make_file(5_000_000), 0, "-H", "Expect: 100-continue", "--expect100-timeout", "30") == 413
    assert headers("-I", url)["upload-offset"] == "0"


def test_a_wrong_offset_is_answered_with_the_right_one(folder, make_file):
    source = make_file(1000)
    url = folder.upload_url("offset.bin", 1000)
    reply = headers("-X", "PATCH", "-H", "Upload-Offset: 7", "-H", OCTETS, "--data-binary", f"@{source}", url)
    assert (reply[""], reply["upload-offset"]) == (409, "0")
    assert patch(url, source, 0) == 204


@pytest.mark.parametrize("name", ["sha1", "sha256"])
def test_a_wrong_checksum_is_460_and_moves_nothing(folder, make_file, name):
    source = make_file(1000)
    url = folder.upload_url("sum.bin", 1000)
    right = base64.b64encode(hashlib.new(name, source.read_bytes()).digest()).decode()
    wrong = base64.b64encode(hashlib.new(name, b"other").digest()).decode()
    assert patch(url, source, 0, "-H", f"Upload-Checksum: {name} {wrong}") == 460
    assert headers("-I", url)["upload-offset"] == "0"
    assert patch(url, source, 0, "-H", f"Upload-Checksum: {name} {right}") == 204
    assert sha256(folder.path / "sum.bin") == sha256(source)


@pytest.mark.parametrize("asked, part", [("0-9", slice(0, 10)), ("4999990-", slice(4999990, None)), ("-5", slice(-5, None))])
def test_ranges(folder, stored, asked, part):
    result = curl("-r", asked, folder.download_url("stored.bin"))
    assert result.stdout == stored.read_bytes()[part]


def test_continues_a_partial_file(folder, stored, tmp_path):
    partial = tmp_path / "partial.bin"
    partial.write_bytes(stored.read_bytes()[:1_234_567])
    curl("-C", "-", "-o", partial, folder.download_url("stored.bin"))
    assert sha256(partial) == sha256(stored)


@pytest.mark.parametrize("name", ["stored.bin", "stored.bin.gz"])
def test_compressed_never_changes_bytes(folder, stored, name):
    neighbour = folder.path / "stored.bin.gz"
    subprocess.run(f"gzip -c > '{neighbour}'", shell=True, check=True, input=b"another file's content")
    result = curl("--compressed", folder.download_url(name))
    assert sha256(result.stdout) == sha256(folder.path / name)


def test_head_of_a_download(folder, stored):
    reply = headers("-I", folder.download_url("stored.bin"))
    assert (reply[""], reply["content-length"], reply["accept-ranges"]) == (200, "5000000", "bytes")


def test_options_of_uploads(agent):
    reply = headers("-X", "OPTIONS", agent.client + "/upload")
    assert reply[""] in (200, 204)
    expected = {"tus-resumable": "1.0.0", "tus-version": "1.0.0", "tus-max-size": str(100 << 30)}
    assert {name: reply.get(name) for name in expected} == expected
    assert reply["access-control-allow-origin"] == "*"
    assert "PATCH" in reply["access-control-allow-methods"] or reply["access-control-allow-methods"] == "*"


def test_delete_ends_an_upload(folder, make_file):
    url = folder.upload_url("ended.bin", 1000)
    assert status("-X", "DELETE", "-H", "Tus-Resumable: 1.0.0", url) == 204
    assert headers("-I", url)[""] in (404, 410)
    assert patch(url, make_file(1000), 0) in (404, 410)
    assert not (folder.path / "ended.bin").exists()


def test_two_downloads_share_a_connection(folder, stored, tmp_path):
    url = folder.download_url("stored.bin")
    result = curl("-v", "-o", tmp_path / "a", url, "-o", tmp_path / "b", url)
    assert b"Re-using existing connection" in result.stderr
    assert sha256(tmp_path / "a") == sha256(tmp_path / "b") == sha256(stored)
