"""Pure Storage's older client (REST 1.x) against the simulated array."""

import pytest
from purity_fb import FileSystem, PurityFb, rest

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
    made = PurityFb(array.url.removeprefix("https://"), version="1.8")
    made.disable_verify_ssl()
    made.login(TOKEN)
    return made


def test_a_wrong_token_is_refused(array):
    other = PurityFb(array.url.removeprefix("https://"), version="1.8")
    other.disable_verify_ssl()
    with pytest.raises(rest.ApiException) as caught:
        other.login("T-wrong")
    assert caught.value.status == 401


def test_array_blades_and_space(client):
    (array,) = client.arrays.list_arrays().items
    assert (array.name, array.os, array.revision) == ("fb01", "Purity//FB", "4007aea5")
    assert {blade.status for blade in client.blade.list_blades().items} == {"healthy", "unclaimed"}
    (space,) = client.arrays.list_arrays_space(type="file-system").items
    assert space.capacity == 89314175302419


def test_file_system_with_use_and_paging(array, client, root):
    (root / "file").write_bytes(b"x" * 9000)
    answer = client.file_systems.list_file_systems(names=["FB-NFS1"], limit=10)
    (found,) = answer.items
    assert found.provisioned == 1 << 40
    assert found.space.virtual == 4096 + 12288
    assert answer.pagination_info.continuation_token is None
    first = client.file_systems.list_file_systems(limit=1)
    assert (first.pagination_info.total_item_count, len(first.items)) == (2, 1)
    second = client.file_systems.list_file_systems(limit=1, token=first.pagination_info.continuation_token)
    assert second.items[0].destroyed


def test_no_limit_reads_as_zero(array, client):
    array.do("file-system", name="FB-NFS1", provisioned=None)
    assert client.file_systems.list_file_systems(names=["FB-NFS1"]).items[0].provisioned == 0
    changed = client.file_systems.update_file_systems(name="FB-NFS1", attributes=FileSystem(provisioned=1 << 40))
    assert changed.items[0].provisioned == 1 << 40


def test_an_unknown_name(array, client):
    assert client.file_systems.list_file_systems(names=["nope"]).items == []
    array.do("settings", unknown_name_1x="400")
    with pytest.raises(rest.ApiException) as caught:
        client.file_systems.list_file_systems(names=["nope"])
    assert caught.value.status == 400


def test_performance(client):
    (metric,) = client.file_systems.list_file_systems_performance(names=["FB-NFS1"], protocol="NFS").items
    assert (metric.reads_per_sec, metric.usec_per_write_op) == (120.3, 520.1)


def test_group_quotas(client):
    quota = client.quotas_groups
    from purity_fb import QuotasGroup

    select = {"file_system_names": ["FB-NFS1"], "gids": [100]}
    assert quota.create_group_quotas(**select, quota=QuotasGroup(quota=1024)).items[0].quota == 1024
    assert quota.list_group_quotas(**select).items[0].group.id == 100
    quota.delete_group_quotas(**select)


def test_logout_ends_the_session(array, client):
    before = array.do("state")
    client.logout()
    assert array.do("state")["sessions"] == before["sessions"] - 1
    with pytest.raises(rest.ApiException) as caught:
        client.arrays.list_arrays()
    assert caught.value.status == 403
