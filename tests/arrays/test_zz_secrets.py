"""No secret of any array is in what the agents of the whole run logged. Last in the alphabet, to run last."""

import json

import pytest

from arrays.sites import SITES, Rig, Scope
from harness.agent import ApiError


@pytest.mark.parametrize("site", SITES, ids=repr)
def test_errors_about_credentials_do_not_show_them(shared, site):
    with Rig(site, shared) as rig:
        rig.call("GET", "/volume/hwinfo")
        echo = {"message": "bad credentials: " + " ".join(rig.array.do("secrets"))}
        # An array that repeats what it was sent must not make us repeat it too.
        rig.array.fault("status", status=403, body={"error": {**echo, "code": "6"}, "errors": [echo], **echo})
        rig.call("GET", "/volume/hwinfo")
        try:
            Scope(rig).update(1 << 30)
        except ApiError as error:
            assert not any(secret in error.body.decode() for secret in rig.array.do("secrets"))
        rig.array.clear()


def test_no_secret_of_the_whole_run_is_in_a_log(shared, capsys):
    searched = [json.loads(line) for line in (shared / "searched").read_text().splitlines()]
    found = [line for outcome in searched for line in outcome["lines"]]
    with capsys.disabled():
        secrets, size = (sum(outcome[key] for outcome in searched) for key in ("secrets", "bytes"))
        print(
            f"\n  {secrets} secrets searched for in {size >> 10} KiB of logs of {len(searched)} agents: "
            f"{len(found)} lines show one"
        )
    assert len(searched) >= len(SITES)
    assert any(outcome["debug"] for outcome in searched)
    assert found == []
