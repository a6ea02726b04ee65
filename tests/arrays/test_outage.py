"""An array that is down or not what it should be: files are still served, and what is known is told with its age."""

import os
import subprocess
import time

import pytest

from arrays.sites import NETAPP_NEW, NETAPP_OLD, OUR_USER, PURE_1, PURE_2, WEKA, Rig, Scope, eventually
from arrays.test_scenario import FolderOf, upload
from harness.agent import ApiError
from harness.folder import sha256

GIB = 1 << 30


@pytest.fixture
def rig(request, shared):
    site, options = request.param
    with Rig(site, shared, options={f"{site.prefix}_request_timeout": "1s"} | options) as running:
        yield running


def on(*sites, **options):
    """Runs a test on these sites with these options of the volume."""
    return pytest.mark.parametrize("rig", [(site, options) for site in sites], ids=[site.name for site in sites], indirect=True)


@on(NETAPP_NEW, WEKA, PURE_1, PURE_2)
def test_files_are_served_while_the_array_is_down(rig):
    scope = Scope(rig)
    scope.create()
    folder = FolderOf(rig, scope)
    known = rig.call("GET", "/folder/fs-usage")
    assert rig.call("GET", "/volume/hwinfo")["status"] == "healthy"

    rig.array.fault("drop")
    rig.array.do("disconnect")
    content = bytes(range(256)) * 100
    upload(folder, "data.bin", content)
    assert sha256(folder.path / "data.bin") == sha256(content)
    assert set(folder.list()) >= {"data.bin"}
    assert rig.agent.call("GET", "/volumes")["volumes"]
    info = rig.call("GET", "/volume/hwinfo")
    assert info["status"] == "degraded"
    assert info["status_info"]
    assert int(info["metadata"]["figures_age_seconds"]) >= 0
    # Capacity is still known from before.
    assert rig.call("GET", "/folder/fs-usage")["capacity_bytes"] == known["capacity_bytes"]
    folder.delete()

    rig.array.clear()
    assert eventually(lambda: rig.call("GET", "/volume/hwinfo")["status"] == "healthy")


@on(NETAPP_NEW, WEKA, PURE_2)
def test_an_array_that_was_never_reached_is_unavailable(shared, rig):
    rig.agent.stop()
    rig.array.fault("drop")
    rig.agent.start()
    info = rig.call("GET", "/volume/hwinfo")
    assert info["status"] in ("unavailable", "degraded")
    assert info["status_info"]
    folder_scope = Scope(rig)
    with pytest.raises(ApiError) as caught:
        rig.call("GET", "/volume/performance-metric")
    assert caught.value.status >= 500
    assert not folder_scope.path.exists()


@on(NETAPP_NEW, WEKA, PURE_1, PURE_2)
def test_a_self_signed_certificate_names_the_two_cures(rig):
    rig.array.do("certificate", kind="selfsigned")
    info = rig.call("GET", "/volume/hwinfo")
    for key in ("ca_file", "cert_fingerprint"):
        assert f"{rig.site.prefix}_{key}" in info["status_info"], info


@pytest.mark.parametrize("site", [NETAPP_NEW, WEKA, PURE_2], ids=repr)
def test_a_pinned_fingerprint_is_enough_and_another_is_not(shared, site):
    prefix = site.prefix
    with Rig(site, shared) as rig:
        prints = rig.array.facts["fingerprints"]
        for kind, pinned, status in (("selfsigned", "selfsigned", "healthy"), ("good", "selfsigned", "unavailable")):
            rig.array.do("certificate", kind=kind)
            rig.changes = {f"{prefix}_ca_file": None, f"{prefix}_cert_fingerprint": prints[pinned]}
            with rig.new_agent() as agent:
                info = agent.call("GET", "/volume/hwinfo", volume="local")
                assert info["status"] == status, info


SECRET_KEYS = [
    (NETAPP_NEW, "netapp_ontap_password"),
    (NETAPP_OLD, "netapp_password"),
    (WEKA, "weka_password"),
    (PURE_2, "purity_api_token"),
]


@pytest.mark.parametrize("site, key", SECRET_KEYS, ids=[key for _, key in SECRET_KEYS])
def test_credentials_come_from_files_too(shared, site, key):
    file = shared / f"{site}-{key}"
    file.write_text(site.options[key] + "\n")
    file.chmod(0o400)
    if os.getuid() == 0:
        os.chown(file, OUR_USER, OUR_USER)
    with Rig(site, shared, options={key: None, f"{key}_file": str(file)}) as rig:
        assert rig.call("GET", "/volume/hwinfo")["status"] == "healthy"


@pytest.mark.parametrize("site", [NETAPP_NEW, WEKA, PURE_2], ids=repr)
def test_switched_off_verification_warns_once(shared, site):
    key = "purity_ssl_verify" if site.prefix == "purity" else f"{site.prefix}_verify_ssl"
    with Rig(site, shared, options={key: False, f"{site.prefix}_ca_file": None}) as rig:
        rig.array.do("certificate", kind="other-name")
        for _ in range(5):
            assert rig.call("GET", "/volume/hwinfo")["status"] == "healthy"
        assert sum("WARN" in line and key in line for line in rig.agent.lines()) == 1


@on(WEKA, PURE_1, PURE_2)
def test_many_who_find_the_session_dead_share_one_login(rig):
    rig.call("GET", "/volume/hwinfo")
    before = rig.array.do("state")
    rig.array.do("expire", **({"also_refresh": True} if rig.site is WEKA else {}))
    rig.array.fault("delay", "login", seconds=0.3)
    calls = [subprocess.Popen(["curl", "-sf", *curl(rig, path)], stdout=subprocess.DEVNULL) for path in PATHS * 10]
    assert [call.wait(60) for call in calls] == [0] * len(calls)
    after = rig.array.do("state")
    assert after["logins"] == before["logins"] + 1


PATHS = ["/folder/fs-usage", "/volume/performance-metric"]


def curl(rig, path):
    header = f"X-BackendAI-Storage-Auth-Token: {rig.agent.manager_secret}"
    body = '{"volume": "local"}'
    return ["-X", "GET", "-H", header, "-H", "Content-Type: application/json", "-d", body, rig.agent.manager + path]


@on(WEKA)
def test_tokens_are_renewed_before_they_end(rig):
    rig.array.do("settings", access_seconds=31)
    rig.array.do("expire")
    rig.call("GET", "/folder/fs-usage")
    time.sleep(1.5)
    before = rig.array.do("state")["refreshes"]
    rig.array.calls(reset=True)
    rig.call("GET", "/folder/fs-usage")
    assert rig.array.do("state")["refreshes"] == before + 1
    assert 401 not in [call["status"] for call in rig.array.calls()["log"]]


@on(PURE_1, PURE_2)
def test_sessions_are_closed_at_the_end(rig):
    rig.call("GET", "/folder/fs-usage")
    assert rig.array.do("state")["sessions"] == 1
    assert rig.agent.stop() == 0
    assert rig.array.do("state")["sessions"] == 0


@on(NETAPP_NEW)
def test_a_password_that_is_refused_is_not_tried_again_and_again(rig):
    rig.array.fault("status", status=401, body={"error": {"code": "6691623", "message": "User is not authorized."}})
    rig.array.calls(reset=True)
    assert rig.call("GET", "/volume/hwinfo")["status"] == "unavailable"
    # One call, refused, is final: more of them could lock the account.
    assert rig.array.calls()["total"] <= 2
