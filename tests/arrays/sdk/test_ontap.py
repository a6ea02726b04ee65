"""NetApp's official client against the simulated cluster; it complains in its log about answers it does not know."""

import logging
import time

import pytest
from netapp_ontap import HostConnection, NetAppRestError, config
from netapp_ontap.resources import Job, Qtree, QuotaReport, QuotaRule, Svm, Volume, VolumeMetrics

from arrays.simulators.control import Simulator


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("vol1")


@pytest.fixture(scope="module")
def array(root):
    with Simulator("ontap", "--root", root) as running:
        address = running.url.removeprefix("https://")
        host, _, port = address.partition(":")
        config.CONNECTION = HostConnection(
            host, username="admin", password="netapp1!", port=int(port), verify=False, poll_interval=0.1, poll_timeout=10
        )
        yield running
        config.CONNECTION = None


@pytest.fixture(autouse=True)
def complaints(caplog):
    """No answer may hold a member the client's models do not know or of a type they do not expect."""
    with caplog.at_level(logging.WARNING):
        yield
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []


@pytest.fixture
def volume(array):
    return Volume.find(name="vol1", fields="nas.path,svm")


def appears(path):
    deadline = time.monotonic() + 5
    while not path.is_dir():
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.02)


def test_a_volume_is_found_with_its_junction_and_svm(volume):
    assert volume.nas.path == "/vol1"
    assert volume.svm.name == "svm1"
    assert Volume.find(name="nothing") is None


def test_expensive_members_come_when_asked_for(array, volume):
    plain = Volume(uuid=volume.uuid)
    plain.get(fields="*")
    assert "quota" not in plain.to_dict()
    asked = Volume(uuid=volume.uuid)
    asked.get(fields="space,quota,files,statistics,metric")
    assert asked.space.size == 1 << 40
    assert asked.quota.state == "off"
    assert asked.metric.iops.read == 120
    assert asked.statistics.latency_raw.read == 1792666552544


def test_qtree_rule_switch_and_report(array, volume, root):
    qtree = Qtree(name="walk", svm={"name": "svm1"}, volume={"uuid": volume.uuid}, user={"id": "1000"}, unix_permissions=755)
    qtree.post(hydrate=True, poll=True)
    assert qtree.id == 1
    assert qtree.nas.path == "/vol1/walk"
    appears(root / "walk")

    with pytest.raises(NetAppRestError, match="same identifiers"):
        Qtree(name="walk", svm={"name": "svm1"}, volume={"uuid": volume.uuid}).post(poll=True)

    rule = QuotaRule(
        svm={"name": "svm1"}, volume={"uuid": volume.uuid}, type="tree", qtree={"name": "walk"}, space={"hard_limit": 1000000}
    )
    rule.post(hydrate=True, poll=True)
    assert rule.space.hard_limit == 1000448
    assert not hasattr(rule.space, "soft_limit")

    volume.quota = {"enabled": True}
    volume.patch(poll=True)
    with pytest.raises(NetAppRestError, match="already enabled|initialized"):
        again = Volume(uuid=volume.uuid)
        again.quota = {"enabled": True}
        again.patch(poll=True)
    deadline = time.monotonic() + 5
    while array.do("state")["quota"] != "on":
        assert time.monotonic() < deadline
        time.sleep(0.05)

    (root / "walk" / "file").write_bytes(b"x" * 5000)
    query = {"volume.uuid": volume.uuid, "qtree.name": "walk", "type": "tree", "fields": "space,files"}
    (report,) = QuotaReport.get_collection(**query)
    assert report.space.used.total == 4096 + 8192
    assert report.space.hard_limit == 1000448
    assert report.index > 1 << 53

    rule.space = {"hard_limit": -1}
    rule.patch(poll=True)
    (found,) = QuotaRule.get_collection(**{"volume.uuid": volume.uuid, "qtree.name": "walk", "fields": "space"})
    assert "space" not in found.to_dict()
    rule_of_all = [each.qtree.name for each in QuotaRule.get_collection(fields="qtree")]
    assert sorted(rule_of_all) == ["", "walk"]


def test_pages_are_followed(array, volume):
    for index in range(5):
        Qtree(name=f"page{index}", svm={"name": "svm1"}, volume={"uuid": volume.uuid}).post(poll=True)
    array.calls(reset=True)
    names = [report.qtree.name for report in QuotaReport.get_collection(max_records=2, show_default_records=False)]
    assert names == ["walk", *(f"page{index}" for index in range(5))]
    assert array.calls()["routes"]["GET /api/storage/quota/reports"] == 3
    assert len(list(Qtree.get_collection(max_records=2))) == 7


def test_metrics_history(volume):
    (latest,) = VolumeMetrics.get_collection(volume.uuid, fields="*")
    assert latest.status == "ok"
    assert latest.throughput.read == 15728640


def test_rule_and_qtree_are_deleted(array, volume, root):
    rule = QuotaRule.find(**{"volume.uuid": volume.uuid, "qtree.name": "walk"})
    # The last explicit rule goes, but stays in force until quotas are switched off and on.
    with pytest.raises(NetAppRestError, match="enforced until"):
        rule.delete(poll=True)
    assert QuotaRule.find(**{"volume.uuid": volume.uuid, "qtree.name": "walk"}) is None
    Qtree(id=1, **{"volume.uuid": volume.uuid}).delete(poll=True)
    assert not (root / "walk").exists()


def test_errors_carry_ontaps_codes(array, volume):
    for uuid, code in (("1", "2"), ("00000000-0000-0000-0000-000000000000", "4")):
        with pytest.raises(NetAppRestError) as caught:
            Volume(uuid=uuid).get()
        assert caught.value.http_err_response.http_response.json()["error"]["code"] == code


def test_a_failed_job_raises_with_its_message(array, volume):
    array.fault("job", "POST /api/storage/qtrees", how="fail", code=5242886, message="no room on the aggregate")
    with pytest.raises(NetAppRestError, match="no room on the aggregate"):
        Qtree(name="unlucky", svm={"name": "svm1"}, volume={"uuid": volume.uuid}).post(poll=True)
    array.clear()
    assert "unlucky" not in array.do("state")["qtrees"]


def test_svms_and_jobs_are_listed(array):
    assert [svm.name for svm in Svm.get_collection()] == ["svm1"]
    assert {job.state for job in Job.get_collection(fields="state")} <= {"success", "failure"}
