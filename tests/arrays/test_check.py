"""`storage-agent check --online` logs in to each array and names what is missing."""

import json
import subprocess

import pytest

from arrays.sites import NETAPP_NEW, NETAPP_OLD, PURE_1, PURE_2, SITES, WEKA, Rig, secrets_of_all


def check(rig, **changes):
    """The findings of the check with these options of the volume changed."""
    rig.changes = changes
    agent = rig.new_agent()
    # Only the configuration is wanted, so the agent is not started.
    agent.start = lambda: None
    agent.process = None
    agent.stop = lambda: None
    with agent:
        command = agent.command
        at = command.index("-f")
        # No wrapper's options after the program: `check` has its own.
        line = [*command[:at], "check", "--online", "--json", "-f", command[at + 1]]
        result = subprocess.run(line, capture_output=True, text=True, timeout=60)
    for secret in secrets_of_all():
        assert secret not in result.stdout + result.stderr
    try:
        findings = json.loads(result.stdout)["findings"]
    except (ValueError, KeyError):
        raise AssertionError(f"{result.stdout}\n{result.stderr}") from None
    return result.returncode, [finding for finding in findings if finding["grade"] in ("warning", "problem")]


@pytest.mark.parametrize("site", SITES, ids=repr)
def test_a_right_configuration_has_nothing_to_complain_of(shared, site):
    with Rig(site, shared) as rig:
        if site is NETAPP_OLD:
            # Quotas that are off are worth a warning there.
            rig.call("PATCH", "/volume/quota", vfid=None, size_bytes=1 << 30)
        status, findings = check(rig)
        about_arrays = [finding for finding in findings if "local" in finding["subject"] or site.prefix in str(finding)]
        assert about_arrays == []


CASES = [
    (NETAPP_NEW, {"netapp_ontap_password": "wrong"}, None, "netapp_ontap_password"),
    (NETAPP_NEW, {"netapp_volume_name": "vol9"}, None, "netapp_volume_name"),
    (NETAPP_NEW, {}, ("status", "quota", {"status": 403, "body": {"error": {"code": "6", "message": "no"}}}), "role"),
    (NETAPP_OLD, {"netapp_qtree_name": "nothing"}, None, "netapp_qtree_name"),
    (NETAPP_OLD, {"netapp_svm": "svm9"}, None, "svm"),
    (WEKA, {"weka_password": "wrong"}, None, "weka_password"),
    (WEKA, {"weka_fs_name": "fs9"}, None, "weka_fs_name"),
    (PURE_1, {"purity_api_token": "T-wrong"}, None, "purity_api_token"),
    (PURE_2, {"purity_fs_name": "FB-9"}, None, "purity_fs_name"),
    (PURE_2, {"purity_fs_name": "thrown-away"}, None, "purity_fs_name"),
    (PURE_2, {"purity_api_version": "2.99"}, None, "purity_api_version"),
]


@pytest.mark.parametrize("site, changes, fault, named", CASES, ids=[f"{c[0]}-{c[3]}-{i}" for i, c in enumerate(CASES)])
def test_what_is_wrong_is_named_with_its_cure(shared, site, changes, fault, named):
    with Rig(site, shared) as rig:
        if fault:
            kind, match, details = fault
            rig.array.fault(kind, match, **details)
        status, findings = check(rig, **changes)
        assert status != 0
        text = json.dumps(findings)
        assert named in text, findings


@pytest.mark.parametrize("site", [NETAPP_NEW, WEKA, PURE_2], ids=repr)
def test_a_certificate_that_is_not_trusted_is_named(shared, site):
    with Rig(site, shared) as rig:
        for kind in ("selfsigned", "other-name", "expired"):
            rig.array.do("certificate", kind=kind)
            status, findings = check(rig)
            assert status != 0
            assert "certificate" in json.dumps(findings), (kind, findings)
