"""Archives, read back by two independent readers."""

import io
import os
import subprocess
import time
import zipfile

import pytest
import requests

from harness.folder import sha256

FILES = {
    "top.bin": 100_000,
    "empty.bin": 0,
    "sub/one.bin": 1,
    "sub/deeper/large.bin": 20 << 20,
    "sub/이름 with blanks.bin": 3000,
}


@pytest.fixture
def tree(folder, make_file):
    """The sources' digests by their path below the vfolder's folder `tree`."""
    digests = {}
    folder.mkdir("tree/sub/deeper", "tree/nothing in here")
    for relpath, size in FILES.items():
        source = make_file(size)
        target = folder.path / "tree" / relpath
        target.write_bytes(source.read_bytes())
        os.utime(target, (1_700_000_000, 1_700_000_000))
        digests[relpath] = sha256(source)
    return digests


def check(path, expected, directories):
    """Every entry has the source's bytes for Python's reader, and `unzip -t` finds no fault."""
    with zipfile.ZipFile(path) as archive:
        found = {name: sha256(archive.read(name)) for name in archive.namelist() if not name.endswith("/")}
        assert found == expected
        assert directories <= {name for name in archive.namelist() if name.endswith("/")}
        times = {info.date_time for info in archive.infolist() if not info.is_dir()}
    result = subprocess.run(["unzip", "-t", path], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    return times


def fetch(url, path):
    reply = requests.get(url)
    assert reply.status_code == 200, reply.text
    assert reply.headers["Content-Type"] == "application/zip"
    path.write_bytes(reply.content)
    return reply


def test_a_directory_is_one_archive(folder, tree, tmp_path):
    reply = fetch(folder.download_url("tree", archive="true"), tmp_path / "a.zip")
    times = check(tmp_path / "a.zip", tree, {"nothing in here/"})
    # A file's time is kept to the two seconds that the format has.
    assert {time[:5] for time in times} == {(2023, 11, 14, 22, 13)}
    assert 'filename="tree.zip"' in reply.headers["Content-Disposition"]


def test_the_root_is_archived_without_staging_files(folder, tree, tmp_path):
    folder.upload_url("unfinished.bin", 10)
    fetch(folder.download_url(".", archive="true"), tmp_path / "root.zip")
    check(tmp_path / "root.zip", {f"tree/{name}": digest for name, digest in tree.items()}, set())


def test_chosen_files_and_directories_are_one_archive(folder, tree, tmp_path):
    url = folder.archive_url("tree/top.bin", "tree/sub", filename="chosen.zip")
    reply = fetch(url, tmp_path / "b.zip")
    expected = {f"tree/{name}": digest for name, digest in tree.items() if name == "top.bin" or "sub/" in name}
    check(tmp_path / "b.zip", expected, set())
    assert 'filename="chosen.zip"' in reply.headers["Content-Disposition"]


def test_links_do_not_carry_foreign_content_out(folder, tree, tmp_path):
    outside = folder.path.parent / "outside.txt"
    outside.write_text("belongs to somebody else")
    (folder.path / "tree/link.txt").symlink_to(outside)
    (folder.path / "tree/loop").symlink_to(".")
    fetch(folder.download_url("tree", archive="true"), tmp_path / "c.zip")
    with zipfile.ZipFile(tmp_path / "c.zip") as archive:
        contents = [archive.read(name) for name in archive.namelist()]
    assert not any(b"somebody else" in content for content in contents)


def test_a_fifo_is_not_opened(folder, tree, tmp_path):
    os.mkfifo(folder.path / "tree/fifo")
    os.chmod(folder.path / "tree/fifo", 0o666)
    fetch(folder.download_url("tree", archive="true"), tmp_path / "d.zip")
    check(tmp_path / "d.zip", tree, set())


@pytest.mark.parametrize("chosen, status", [("missing.bin", 404), ("../outside", 400)])
def test_a_bad_choice_is_refused_before_the_first_byte(folder, tree, chosen, status):
    # Signed here, because the manager API refuses to make a token for a path that leaves the folder.
    claims = {
        "operation": "download",
        "volume": "local",
        "virtual_folder_id": folder.vfid,
        "files": ["tree/top.bin", chosen],
        "filename": None,
        "exp": int(time.time()) + 60,
    }
    reply = requests.get(f"{folder.agent.client}/download-archive", {"token": folder.agent.sign(claims)})
    assert reply.status_code == status
    assert "json" in reply.headers["Content-Type"]


def test_the_two_kinds_of_token_are_not_exchangeable(folder, tree):
    archive, download = folder.archive_url("tree/top.bin"), folder.download_url("tree/top.bin")
    assert requests.get(archive.replace("/download-archive?", "/download?")).status_code == 400
    assert requests.get(download.replace("/download?", "/download-archive?")).status_code == 400


def test_a_broken_archive_does_not_look_whole(folder, tree):
    reader = io.BytesIO(requests.get(folder.download_url("tree", archive="true")).content[:-1000])
    with pytest.raises(zipfile.BadZipFile):
        zipfile.ZipFile(reader)
