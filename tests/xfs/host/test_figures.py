"""Figures about the helper's source, its dependencies and its unit: nothing runs for them."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from xfs import figures

ROOT = Path(__file__).parents[3]
HELPER = sorted((ROOT / "quota-helper/src").rglob("*.rs"))
FORBIDDEN = re.compile(
    "^(tokio|async|futures|mio|smol|hyper|http|h2|reqwest|warp|axum|rustls|ring|openssl|native-tls|regex|serde_json|"
    "simd-json|tracing|log4rs|env_logger|clap|toml)"
)
MOST_LINES = 1200
FORBIDDEN_CALLS = re.compile("mount|bpf|ptrace|^socket|connect|^set(re|res|fs)?[ug]id|kexec|module|unshare|setns|chown|chmod|capset")


def without_tests(path):
    """A file's lines up to its test module, which the house's style puts last."""
    return path.read_text().partition("#[cfg(test)]\nmod tests")[0].splitlines()


def code(lines):
    """Lines that are neither blank nor comments."""
    return [line for line in lines if line.strip() and not line.strip().startswith("//")]


def cargo(*arguments):
    return subprocess.run(["cargo", *arguments], cwd=ROOT, check=True, capture_output=True, text=True).stdout


def linked():
    """The third-party crates in the helper's process: neither ours nor run at build time."""
    tree = cargo("tree", "--locked", "-p", "storage-agent-quota-helper", "-e", "normal,no-proc-macro", "--prefix", "none",
                 "--format", "{p}", "--target", "x86_64-unknown-linux-gnu")
    return sorted({line.split()[0] for line in tree.splitlines() if line and "(/" not in line})


def common_modules():
    """The files of `common` that the helper uses, and those that these use."""
    folder, found = ROOT / "common/src", set()
    waiting = {name for path in HELPER for name in re.findall(r"\bcommon::(\w+)", path.read_text())}
    while waiting:
        name = waiting.pop()
        path = folder / f"{name}.rs"
        if path in found or not path.exists():
            continue
        found.add(path)
        waiting |= set(re.findall(r"\bcrate::(\w+)", "\n".join(without_tests(path))))
    return sorted(found)


def test_someone_can_read_the_helper_in_an_hour():
    common = common_modules()
    counts = []
    for files in (HELPER, common):
        lines = [without_tests(path) for path in files]
        counts.append((sum(len(code(each)) for each in lines), sum(map(len, lines))))
    (helper, helper_all), (shared, shared_all) = counts
    names = ", ".join(path.name for path in common)
    figures.record("H1", f"{helper} + {shared} of code; {helper_all} + {shared_all} with comments and blanks ({names})")
    assert helper <= MOST_LINES and shared <= 400, counts


def test_few_crates_are_linked():
    crates = linked()
    figures.record("H2", f"{len(crates)}: {' '.join(crates)}")
    assert 0 < len(crates) <= 9, crates


def test_no_crate_is_of_a_kind_that_has_no_place_in_it():
    found = [name for name in linked() if FORBIDDEN.match(name)]
    figures.record("H3", f"{len(found)} (cargo tree)")
    assert not found


def test_unsafe_code_is_rare_explained_and_in_one_place():
    sites = []
    for path in [*HELPER, *common_modules()]:
        lines = path.read_text().splitlines()
        for number, line in enumerate(lines):
            if re.search(r"\bunsafe\s*(\{|fn|impl|extern)", line.partition("//")[0]):
                above = lines[max(0, number - 4) : number]
                sites.append((path.name, any("SAFETY" in text for text in above)))
    figures.record("H4", f"{len(sites)} blocks in {len({name for name, _ in sites})} files")
    assert len(sites) <= 3 and len({name for name, _ in sites}) <= 1 and all(explained for _, explained in sites), sites


def test_the_list_of_system_calls_is_short():
    source = (ROOT / "quota-helper/src/sandbox.rs").read_text()
    common, x86, arm = (set(re.findall(r"\bSYS_(\w+)", part)) for part in system_call_lists(source))
    assert x86 and arm, "each architecture has calls of its own"
    most = max(len(common | x86), len(common | arm))
    forbidden = {name for name in common | x86 | arm if FORBIDDEN_CALLS.search(name)}
    figures.record("H7", f"{len(common | x86)} on x86_64, {len(common | arm)} on aarch64; others end the process")
    assert most <= 60 and not forbidden, (most, forbidden)


def system_call_lists(source):
    """Those of all architectures, of x86_64 and of aarch64."""
    lists = re.findall(r'(#\[cfg\(target_arch = "(\w+)"\)\]\n)?const \w*SYSTEM_CALLS: [^=]+= [^\[]*&\[(.*?)\n\]', source, re.S)
    by_architecture = {architecture: text for _, architecture, text in lists}
    return by_architecture[""], by_architecture["x86_64"], by_architecture["aarch64"]


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd-analyze")
def test_the_unit_takes_away_what_it_can():
    unit = ROOT / "packaging/quota-helper.service"
    report = subprocess.run(["systemd-analyze", "security", "--offline=true", "--no-pager", str(unit)],
                            capture_output=True, text=True).stdout
    exposure = float(re.search(r"Overall exposure level for \S+: ([0-9.]+)", report)[1])
    figures.record("H6", f"{exposure} as uid 0 (shipped unit, offline)")
    assert exposure <= 1.4, report
