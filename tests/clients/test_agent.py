"""The running process: no privilege left, no secret in the log, a clean stop."""

import os
import threading
import time
from urllib.request import urlopen

import pytest

from harness.agent import Agent, UNPRIVILEGED
from harness.folder import Folder, sha256


def test_serves_without_privileges(agent):
    assert agent.privileges() == []
    expected = UNPRIVILEGED if os.getuid() == 0 else os.getuid()
    assert {int(uid) for uid in agent.proc_status()["Uid"].split()} == {expected}


@pytest.mark.skipif(os.getuid() != 0, reason="only root can hand out capabilities")
def test_capabilities_it_was_started_with_are_dropped():
    with Agent(ambient_capabilities="chown,dac_override,net_bind_service") as agent:
        assert agent.privileges() == []


def test_the_log_shows_no_token_and_no_secret(agent, folder, make_file):
    source = make_file(1000)
    url = folder.upload_url("logged.bin", 1000)
    for target in (url, url, folder.download_url("logged.bin"), folder.archive_url("logged.bin")):
        try:
            urlopen(target, data=source.read_bytes())
        except OSError:
            pass  # Refused or not, the request has been logged.
    assert agent.leaks() == []


def test_sigterm_lets_a_running_download_finish(make_file):
    # Larger than what the sockets' buffers can hold, so the transfer is still running when the signal arrives.
    source = make_file(32 << 20)
    with Agent() as agent:
        folder = Folder(agent)
        (folder.path / "slow.bin").write_bytes(source.read_bytes())
        with urlopen(folder.download_url("slow.bin")) as reply:
            start = reply.read(1 << 20)
            codes = []
            stopper = threading.Thread(target=lambda: codes.append(agent.stop()))
            stopper.start()
            time.sleep(1)
            received = start + reply.read()
        stopper.join()
    assert sha256(received) == sha256(source)
    assert codes == [0]
