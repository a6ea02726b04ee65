"""No secret and no token is in what the agents of the whole run logged, at its most talkative. Last, to see all of it."""

import json
import os
from pathlib import Path

from harness.folder import Folder
from harness.transfer import patch, request
from hold.guarded import Guarded


def test_what_is_searched_for_would_be_found():
    """A log that shows a token is one with a finding."""
    with Guarded() as agent:
        folder = Folder(agent)
        url = folder.upload_url("file", 4)
        patch(url, 0, b"text")
        request("GET", url.replace("upload", "download"))
        assert agent.leaks() == []
        with agent.log.open("a") as log:
            log.write(f"{url}\n")
        assert len(agent.leaks()) == 1
        text = agent.log.read_text()
        agent.log.write_text(text.replace(url, ""))
        assert "/upload" in text, "requests are logged"


def test_no_secret_is_in_any_log(capsys):
    searched = [json.loads(line) for line in Path(os.environ["HOLD_SEARCHED"]).read_text().splitlines()]
    found = [line for outcome in searched for line in outcome["lines"]]
    with capsys.disabled():
        size, secrets = (sum(outcome[key] for outcome in searched) for key in ("bytes", "secrets"))
        print(f"\n  {secrets} secrets and all tokens searched for in {size >> 10} KiB of logs of {len(searched)} agents: {len(found)} found")
    assert found == []
    # Not each of them has had something to say at that level.
    assert any(outcome["debug"] for outcome in searched)
    assert [outcome["agent"] for outcome in searched if outcome["panics"]] == []
