"""The imitated tools: they do the work, and what they print is what the vendors' documents show."""

import json
import os
import subprocess

import pytest

from arrays.tools import Tools

FORMAT = r"'{}\0{}\0{}\0{}\0{}\0{}\0{}\0{}'.format(mode,uid,gid,ctime,mtime,type,size,x)"


@pytest.fixture
def tree(tmp_path):
    top = tmp_path / "tree"
    (top / "sub").mkdir(parents=True)
    (top / "sub" / "a\nb.txt").write_bytes(b"x" * 13)
    os.symlink("sub", top / "link")
    return top


def run(tools, name, *arguments):
    result = subprocess.run([tools.folder / name, *map(str, arguments)], capture_output=True, env={}, text=True)
    return result.returncode, result.stdout, result.stderr


@pytest.fixture
def xcp(tmp_path):
    return Tools(tmp_path / "bin").install_xcp(exports={"10.0.0.7:/vol1": str(tmp_path)})


def test_xcp_tells_its_licence(xcp):
    assert "License status: ACTIVE" in run(xcp, "xcp", "license")[1].splitlines()
    xcp.set(licence="EXPIRED")
    assert "License status: EXPIRED" in run(xcp, "xcp", "license")[1].splitlines()


def test_xcp_scan_prints_the_fields_asked_for(xcp, tree):
    status, output, _ = run(xcp, "xcp", "scan", "-noid", "-fmt", FORMAT, "10.0.0.7:/vol1/tree")
    assert status == 0
    assert output.rstrip().endswith("STATUS : PASSED")
    records = [line.split("\0") for line in output.split("\n") if "\0" in line]
    assert [(r[5], r[7]) for r in records] == [
        ("2", "10.0.0.7:/vol1/tree"),
        ("5", "10.0.0.7:/vol1/tree/link"),
        ("2", "10.0.0.7:/vol1/tree/sub"),
        # A file name may hold a line feed, so that a record is not a line.
        ("1", "10.0.0.7:/vol1/tree/sub/a"),
    ]


def test_xcp_counts_as_csv(xcp, tree):
    lines = run(xcp, "xcp", "scan", "-csv", "10.0.0.7:/vol1/tree")[1].splitlines()
    assert {"Total count,4", "Directories,2", "Regular files,1", "Symbolic links,1"} <= set(lines)
    assert any(line.startswith("Total space for regular files,size,13,") for line in lines)


def test_xcp_copies_and_deletes(xcp, tree, tmp_path):
    assert run(xcp, "xcp", "copy", "10.0.0.7:/vol1/tree", "10.0.0.7:/vol1/copy")[0] == 0
    assert (tmp_path / "copy" / "sub" / "a\nb.txt").read_bytes() == b"x" * 13
    assert os.readlink(tmp_path / "copy" / "link") == "sub"
    assert run(xcp, "xcp", "delete", "-force", "-removetopdir", "10.0.0.7:/vol1/copy")[0] == 0
    assert not (tmp_path / "copy").exists()
    assert run(xcp, "xcp", "delete", "10.0.0.7:/vol1/tree")[0] == 1
    assert [call[1] for call in xcp.calls()] == ["copy", "delete", "delete"]


def test_xcp_fails_as_told(xcp, tree):
    xcp.set(fail=["copy"])
    status, output, errors = run(xcp, "xcp", "copy", "10.0.0.7:/vol1/tree", "10.0.0.7:/vol1/copy")
    assert (status, output) == (1, "STATUS : FAILED\n")
    assert errors.startswith("xcp: ERROR: ")
    assert run(xcp, "xcp", "scan", "10.0.0.7:/other/tree")[0] == 1


@pytest.mark.parametrize("version, kind, mode", [(1, 40000, 755), (2, 16384, 493)])
def test_pls_writes_one_object_a_line(tmp_path, tree, version, kind, mode):
    tools = Tools(tmp_path / "bin").install_rapidfile(version)
    output = run(tools, "pls", "--json" if version == 1 else "--jsonlines", tree)[1]
    records = {record["path"]: record for record in map(json.loads, output.splitlines())}
    assert set(records) == {str(tree), f"{tree}/sub", f"{tree}/sub/a\nb.txt", f"{tree}/link"}
    (tree / "sub").chmod(0o755)
    assert (records[f"{tree}/sub"]["filetype"], records[f"{tree}/sub"]["mode"]) == (kind, mode)


def test_pdu_sums_up_to_the_start(tmp_path, tree):
    tools = Tools(tmp_path / "bin").install_rapidfile(2)
    records = dict(reversed(item.split("\t", 1)) for item in run(tools, "pdu", "-0", "-b", "-a", tree)[1].split("\0") if item)
    assert records[f"{tree}/sub/a\nb.txt"] == "13"
    below = sum(os.lstat(path).st_size for path in (tree / "sub", tree / "link", tree))
    assert records[str(tree)] == str(13 + below)


@pytest.mark.parametrize("version, banner", [(1, "pdu (RapidFile Toolkit) 1.0"), (2, "version pdu (RapidFile) 2.1.1")])
def test_the_toolkit_tells_its_version(tmp_path, version, banner):
    tools = Tools(tmp_path / "bin").install_rapidfile(version)
    assert run(tools, "pdu", "--version")[1] == banner + "\n"
    assert (tools.folder / ("pcp" if version == 1 else "pcopy")).exists()
    assert not (tools.folder / ("pcopy" if version == 1 else "pcp")).exists()


def test_copying_onto_and_into(tmp_path, tree):
    tools = Tools(tmp_path / "bin").install_rapidfile(2)
    target = tmp_path / "target"
    target.mkdir()
    assert run(tools, "pcopy", "-r", "-T", "-p", tree, target)[0] == 0
    assert (target / "sub").is_dir()
    assert run(tools, "pcopy", "-r", "-p", tree, target)[0] == 0
    assert (target / "tree" / "sub").is_dir()
    assert run(tools, "prm", target)[0] == 1
    assert run(tools, "prm", "-r", target)[0] == 0
    assert not target.exists()
