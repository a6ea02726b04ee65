"""The four packages as files: the same from two folders, well-formed, with what belongs in them."""

import io
import json
import os
import re
import subprocess
import tarfile
import zlib
from pathlib import Path

import pytest

from packages import listed

ROOT = Path(__file__).parents[3]
PACKAGES = Path(os.environ["PACKAGES"])
NAMES = {"storage-agent": "storage-agent", "storage-agent-quota-helper": "quota-helper"}


def run(*command, check=True, **options):
    done = subprocess.run([str(word) for word in command], capture_output=True, **{"text": True} | options)
    assert not check or done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done


def debian(name):
    return next(PACKAGES.glob(f"{name}_*.deb"))


def rpm(name):
    return next(PACKAGES.glob(f"{name}-[0-9]*.rpm"))


@pytest.fixture(scope="module", params=NAMES)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def unpacked(name, tmp_path_factory):
    folder = tmp_path_factory.mktemp(name)
    run("dpkg-deb", "-x", debian(name), folder)
    return folder


@pytest.mark.skipif("PACKAGES_AGAIN" not in os.environ, reason="PACKAGES_REUSE: not built again")
def test_a_build_in_another_folder_gives_the_same_bytes():
    again = Path(os.environ["PACKAGES_AGAIN"])
    built = sorted(path.name for path in PACKAGES.iterdir() if path.suffix in (".deb", ".rpm"))
    assert len(built) == 4
    for package in built:
        assert (PACKAGES / package).read_bytes() == (again / package).read_bytes(), package


def test_lintian_is_silent(name):
    # Run as root it says so itself; that is no finding.
    done = run("lintian", "--pedantic", "--fail-on", "error,warning,info,pedantic", "--allow-root", debian(name), check=False)
    assert (done.stdout, done.returncode) == ("", 0), done.stdout + done.stderr


def test_rpmlint_is_silent(name):
    done = run("rpmlint", "--config", ROOT / "packaging/rpm/rpmlint.toml", rpm(name), check=False)
    findings = [line for line in done.stdout.splitlines() if re.search(r": [EW]: ", line)]
    assert findings == [] and " 0 errors, 0 warnings" in done.stdout, done.stdout + done.stderr


def test_the_debian_package_has_the_listed_files(name):
    listing = run("dpkg-deb", "--fsys-tarfile", debian(name), text=False).stdout
    files = set()
    with tarfile.open(fileobj=io.BytesIO(listing)) as archive:
        for member in archive:
            if not member.isdir():
                # By number alone: dpkg gives the files to whoever has it.
                assert (member.uid, member.gid) == (0, 0), member.name
                files.add(f"{member.mode:04o} root:root {member.name.removeprefix('.')}")
            assert not member.mode & 0o6002, member.name
    assert files == listed("deb", name)


def test_the_rpm_package_has_the_listed_files(name):
    query = "[%{FILEMODES:octal} %{FILEUSERNAME}:%{FILEGROUPNAME} %{FILENAMES} %{FILECAPS}\\n]"
    lines = run("rpm", "-qp", "--nosignature", "--queryformat", query, rpm(name)).stdout.splitlines()
    files = {re.sub(r"^10(\d{4}) (\S+ \S+)( \(none\)| *)$", r"\1 \2", line) for line in lines}
    assert files == listed("rpm", name)


def embedded(program):
    """The list of dependencies in the program's section `.dep-v0` (cargo-auditable)."""
    section = program.with_name("section")
    run("objcopy", "--dump-section", f".dep-v0={section}", program, "/dev/null")
    return json.loads(zlib.decompress(section.read_bytes()))["packages"]


def test_each_program_names_its_dependencies_and_the_bill_of_materials_agrees(name, unpacked):
    inside = {(each["name"], each["version"]) for each in embedded(unpacked / "usr/bin" / NAMES[name])
              if each.get("kind") != "build"}
    bill = json.loads((unpacked / f"usr/share/doc/{name}/{name}.cdx.json").read_text())
    assert bill["bomFormat"] == "CycloneDX"
    listed_there = {(each["name"], each["version"]) for each in [*bill["components"], bill["metadata"]["component"]]}
    assert len(inside) > 5 and inside <= listed_there, inside - listed_there


def test_no_program_names_the_folder_it_was_built_in(name, unpacked):
    content = (unpacked / "usr/bin" / NAMES[name]).read_bytes()
    for folder in (str(ROOT), str(Path.home() / ".cargo")):
        assert folder.encode() not in content, folder
    assert str(ROOT) not in (unpacked / f"usr/share/doc/{name}/{name}.cdx.json").read_text()


def hardening(program):
    """What the program's headers and imports say of its hardening, as in hardening.txt."""
    headers, imports = run("readelf", "-hldW", program).stdout, run("nm", "-D", program).stdout
    stack = re.search(r"GNU_STACK .* ([RWE ]{3}) 0x", headers)[1].strip()
    return {
        "executable": "position-independent" if re.search(r"Type: +DYN", headers) and re.search(r"FLAGS_1.*\bPIE\b", headers) else "fixed",
        "relro": ("full" if "BIND_NOW" in headers else "partial") if "GNU_RELRO" in headers else "none",
        "stack": "executable" if "E" in stack else "not-executable",
        "rpath": " ".join(re.findall(r"\((?:RPATH|RUNPATH)\).*", headers)) or "none",
        "stack-protector": "yes" if "__stack_chk_fail" in imports else "no",
        "libraries": " ".join(sorted(re.findall(r"NEEDED\).*\[(.*)\]", headers))),
    }


def test_each_program_is_hardened_as_listed(name, unpacked):
    expected = {}
    for line in (Path(__file__).parent / "hardening.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            program, what, value = line.split(maxsplit=2)
            expected.setdefault(program, {})[what] = value
    assert hardening(unpacked / "usr/bin" / NAMES[name]) == expected[NAMES[name]]


def test_manual_pages_render_without_a_warning(unpacked):
    pages = sorted((unpacked / "usr/share/man").rglob("*.gz"))
    assert len(pages) == 2
    for page in pages:
        done = run("man", "--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z", page, env={**os.environ, "MANROFFSEQ": "", "MANWIDTH": "100"})
        assert done.stderr == "", done.stderr


def test_shells_take_the_completions(name, unpacked):
    program = NAMES[name]
    script = f"source {unpacked}/usr/share/bash-completion/completions/{program}; complete -p {program}"
    assert program in run("bash", "-c", script).stdout
