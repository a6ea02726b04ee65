"""Pure Storage's current client (REST 2.x) against the simulated array."""

import time

import pytest
from pypureclient import flashblade
from pypureclient.flashblade import FileSystemPatch, GroupQuotaPatch, GroupQuotaPost

from arrays.simulators.control import Simulator

TOKEN = "T-walk"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("fb1")


@pytest.fixture(scope="module")
def array(root):
    with Simulator("flashblade", "--root", root, "--api-token", TOKEN) as running:
        yield running


@pytest.fixture(scope="module")
def client(array):
    made = flashblade.Client(array.url.removeprefix("https://"), api_token=TOKEN)
    yield made
    # Otherwise it logs out at the interpreter's exit, when the array is gone, and says so at length.
    made._token_man.close_session()


def items(response):
    assert response.status_code == 200, response
    return list(response.items)


def test_the_highest_common_version_is_spoken(array, client):
    array.calls(reset=True)
    items(client.get_arrays())
    assert array.calls()["log"][-1]["target"] == "/api/2.12/arrays"


def test_array_blades_and_space(client):
    (array,) = items(client.get_arrays())
    assert (array.os, array.version, array.idle_timeout) == ("Purity//FB", "4.1.2", 1800000)
    states = [blade.status for blade in items(client.get_blades())]
    assert states.count("healthy") == 7
    (space,) = items(client.get_arrays_space(type="file-system"))
    assert space.capacity == 89314175302419
    assert space.space.virtual > 0


def test_alerts_are_filtered(array, client):
    query = "state='open' and severity='critical'"
    assert items(client.get_alerts(filter=query)) == []
    array.do("settings", critical_alerts=2)
    assert len(items(client.get_alerts(filter=query))) == 2
    array.do("settings", critical_alerts=0)


def test_file_system_use_is_that_of_the_directory(client, root):
    (root / "file").write_bytes(b"x" * 9000)
    (found,) = items(client.get_file_systems(names=["FB-NFS1"]))
    assert found.provisioned == 1 << 40
    assert found.space.virtual == 4096 + 12288
    assert found.space.total_physical == found.space.virtual // 3
    assert not found.destroyed


def test_an_unknown_name_is_refused_with_400(client):
    response = client.get_file_systems(names=["nope"])
    assert response.status_code == 400
    assert response.errors[0].message == "File system does not exist."


def test_limits_change_and_may_be_absent(array, client):
    patched = client.patch_file_systems(
        names=["FB-NFS1"], file_system=FileSystemPatch(provisioned=2 << 40, hard_limit_enabled=True)
    )
    assert items(patched)[0].provisioned == 2 << 40
    array.do("file-system", name="FB-NFS1", provisioned=None)
    (found,) = items(client.get_file_systems(names=["FB-NFS1"]))
    assert getattr(found, "provisioned", None) is None
    array.do("file-system", name="FB-NFS1", provisioned=1 << 40)


def test_performance(array, client):
    (metric,) = items(client.get_file_systems_performance(names=["FB-NFS1"], protocol="NFS"))
    assert (metric.reads_per_sec, metric.usec_per_write_op) == (120.3, 520.1)
    assert metric.read_bytes_per_sec == 15728640.4
    array.do("settings", no_performance=True)
    assert items(client.get_file_systems_performance(names=["FB-NFS1"], protocol="NFS")) == []
    array.do("settings", no_performance=False)


def test_group_quotas(client):
    select = {"file_system_names": ["FB-NFS1"], "gids": [100]}
    assert items(client.get_quotas_groups(file_system_names=["FB-NFS1"])) == []
    assert items(client.post_quotas_groups(**select, quota=GroupQuotaPost(quota=1024)))[0].quota == 1024
    assert items(client.patch_quotas_groups(**select, quota=GroupQuotaPatch(quota=2048)))[0].quota == 2048
    assert items(client.get_usage_groups(**select))[0].quota == 2048
    assert client.delete_quotas_groups(**select).status_code == 200
    assert client.delete_quotas_groups(**select).status_code == 400


def test_pages_follow_by_token(client):
    first = client.get_file_systems(limit=1)
    assert (first.total_item_count, [found.name for found in first.items]) == (2, ["FB-NFS1"])
    second = client.get_file_systems(limit=1, continuation_token=first.continuation_token)
    assert second.continuation_token is None
    assert [(found.name, found.destroyed) for found in second.items] == [("thrown-away", True)]


def test_a_dead_session_is_replaced(array, client):
    items(client.get_arrays())
    array.do("expire")
    before = array.do("state")["logins"]
    items(client.get_arrays())
    assert array.do("state")["logins"] == before + 1


def test_a_busy_array_is_waited_for(array, client):
    array.fault("status", "file-systems", times=1, status=429, headers={"Retry-After": "1"}, body={"errors": []})
    started = time.monotonic()
    assert len(items(client.get_file_systems(names=["FB-NFS1"]))) == 1
    assert array.clear() == 1
    assert time.monotonic() - started > 0.5
