"""`cargo run --release -- demo`, as a newcomer runs it: start it, paste what it prints, compare the files."""

import os
import selectors
import signal
import subprocess
import time
from pathlib import Path

import pytest

from harness.folder import sha256

ROOT = Path(__file__).parents[2]
COMMAND = ["cargo", "run", "--release", "--quiet", "--locked", "--", "demo"]


@pytest.fixture(scope="module")
def demo():
    """The running demo and what it printed until it had nothing more to say."""
    process = subprocess.Popen(
        COMMAND, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
    )
    try:
        yield process, read_until_quiet(process)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def read_until_quiet(process, silence=1, patience=120):
    text, deadline = b"", time.monotonic() + patience
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while time.monotonic() < deadline:
            if selector.select(silence):
                piece = os.read(process.stdout.fileno(), 1 << 16)
                if not piece:
                    break
                text += piece
            elif b"Ctrl-C" in text:
                return text.decode()
    raise AssertionError(f"the demo printed no commands:\n{text.decode(errors='replace')}")


def pasteable(text):
    """What stands between the demo's two sentences, comments included: a person marks it all and pastes it."""
    return text.partition("Paste this into another terminal:")[2].partition("Ctrl-C ends")[0]


def test_the_pasted_commands_give_back_the_same_bytes(demo, tmp_path):
    script = pasteable(demo[1])
    shell = ["bash", "-euo", "pipefail", "-c", script]
    result = subprocess.run(shell, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, script + result.stdout + result.stderr
    sent = (tmp_path / "sent.bin").read_bytes()
    assert len(sent) == 16 << 20
    assert sha256(tmp_path / "received.bin") == sha256(sent)
    assert (tmp_path / "range.bin").read_bytes() == sent[:100]
    # The listing is printed between the other commands' output.
    assert '"name":"sent.bin"' in result.stdout.replace('": "', '":"')


def test_the_demo_has_no_privileges(demo):
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{demo[0].pid}/status").read_text().splitlines())
    assert "0" not in fields["Uid"].split()
    assert [fields[name].strip("\t0") for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")] == [""] * 4
    assert fields["NoNewPrivs"].strip() == "1"


def test_control_c_ends_the_demo(demo):
    demo[0].send_signal(signal.SIGINT)
    assert demo[0].wait(30) in (0, 130, -signal.SIGINT)
