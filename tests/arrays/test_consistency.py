"""Scopes that the array and the directory disagree about, and two agents at once: no error, no half-made scope."""

import json
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from arrays.sites import NETAPP_NEW, NETAPP_OLD, OUR_USER, WEKA, Rig, Scope, eventually
from arrays.test_scenario import FolderOf, upload
from harness.agent import ApiError

GIB = 1 << 30
WITH_SCOPES = pytest.mark.parametrize("site", [NETAPP_NEW, WEKA], ids=repr)


@pytest.fixture(scope="module")
def rigs(shared):
    """Rigs by site, started when first asked for."""
    running = {}

    def get(site):
        if site not in running:
            running[site] = Rig(site, shared, options={f"{site.prefix}_request_timeout": "2s"}).__enter__()
        return running[site]

    yield get
    for rig in running.values():
        rig.__exit__(None, None, None)


@WITH_SCOPES
def test_two_agents_make_and_limit_one_scope_at_once(rigs, site):
    rig = rigs(site)
    with rig.new_agent() as other, ThreadPoolExecutor(8) as pool:
        for _ in range(5):
            scope = Scope(rig)
            patch = {"volume": "local", "qsid": scope.id}
            limits = [GIB * (1 + index) for index in range(8)]
            agents = [rig.agent, other] * 4
            calls = [
                pool.submit(agent.call, "PATCH", "/quota-scope", **patch, options={"limit_bytes": limit})
                for agent, limit in zip(agents, limits)
            ]
            errors = [call.exception() for call in calls if call.exception()]
            assert errors == []
            kept = rig.limit_on_array(scope)
            assert kept in limits
            described = [agent.call("GET", "/quota-scope", **patch)["limit_bytes"] for agent in (rig.agent, other)]
            assert eventually(lambda: scope.describe()["limit_bytes"] == kept), (kept, described)


@WITH_SCOPES
def test_two_agents_make_and_remove_one_scope_at_once(rigs, site):
    rig = rigs(site)
    with rig.new_agent() as other, ThreadPoolExecutor(8) as pool:
        for _ in range(5):
            scope = Scope(rig)
            ask = {"volume": "local", "qsid": scope.id}
            calls = [pool.submit(other.call, "PATCH", "/quota-scope", **ask, options={"limit_bytes": GIB}) for _ in range(3)]
            calls += [pool.submit(rig.agent.call, "DELETE", "/quota-scope", **ask) for _ in range(3)]
            for call in calls:
                error = call.exception()
                assert error is None or (isinstance(error, ApiError) and error.status in (404, 409, 500, 503)), error
            # Whatever came of it, the scope can be made and removed again.
            scope.update(GIB)
            assert scope.path.is_dir()
            assert rig.limit_on_array(scope) == GIB
            scope.remove()
            assert not scope.path.exists()
            assert rig.limit_on_array(scope) is None


def test_a_qtree_without_a_directory_is_waited_for_and_then_named(rigs):
    rig = rigs(NETAPP_NEW)
    scope = Scope(rig)
    rig.array.do("qtree", name=scope.path.name, on_disk=False)
    started = time.monotonic()
    with pytest.raises(ApiError) as caught:
        scope.create(GIB)
    assert caught.value.status >= 500
    assert json.loads(caught.value.body)["msg"]
    assert time.monotonic() - started < 60
    # The directory that comes late after all is taken.
    rig.array.do("drop-qtree", name=scope.path.name)
    rig.array.do("qtree", name=scope.path.name)
    scope.update(GIB)
    assert rig.limit_on_array(scope) == GIB


def test_a_qtree_that_shows_up_late_is_waited_for(rigs):
    rig = rigs(NETAPP_NEW)
    rig.array.do("settings", appear_seconds=4)
    scope = Scope(rig)
    scope.create(GIB)
    rig.array.do("settings", appear_seconds=0.2)
    assert scope.path.is_dir()
    assert scope.path.stat().st_uid == OUR_USER
    assert scope.path.stat().st_mode & 0o777 == 0o755


def test_a_directory_that_is_no_qtree_cannot_be_limited_and_says_so(rigs):
    rig = rigs(NETAPP_NEW)
    scope = Scope(rig)
    scope.path.mkdir()
    scope.path.chmod(0o755)
    with pytest.raises(ApiError) as caught:
        scope.update(GIB)
    assert "qtree" in json.loads(caught.value.body)["msg"]
    assert rig.limit_on_array(scope) is None
    described = scope.describe()
    assert described["limit_bytes"] in (None, 0)


def test_a_qtree_whose_rule_an_administrator_removed_gets_a_new_one(rigs):
    rig = rigs(NETAPP_NEW)
    scope = Scope(rig)
    scope.create(GIB)
    rig.array.do("drop-rule", name=scope.path.name)
    scope.update(2 * GIB)
    assert rig.limit_on_array(scope) == 2 * GIB


def test_a_stale_rule_does_not_limit_a_new_scope(rigs):
    rig = rigs(NETAPP_NEW)
    scope = Scope(rig)
    rig.array.do("qtree", name=scope.path.name)
    rig.array.do("rule", name=scope.path.name, limit=4096)
    rig.array.do("drop-qtree", name=scope.path.name)
    scope.create()
    assert eventually(lambda: not scope.describe()["limit_bytes"])
    assert rig.limit_on_array(scope) is None


@pytest.mark.parametrize("state", ["off", "initializing", "mixed"])
def test_quotas_that_somebody_switched_off_come_on_again(shared, state):
    with Rig(NETAPP_NEW, shared) as rig:
        scope = Scope(rig)
        scope.create(GIB)
        rig.array.do("quota", state=state)
        if state != "off":
            # A transition that ends while we try.
            with ThreadPoolExecutor(1) as pool:
                update = pool.submit(scope.update, 2 * GIB)
                time.sleep(1)
                rig.array.do("quota", state="on")
                update.result()
        else:
            scope.update(2 * GIB)
        assert eventually(lambda: rig.array.do("state")["enforced"].get(scope.path.name) == 2 * GIB)
        assert eventually(lambda: scope.describe()["limit_bytes"] == 2 * GIB)


def test_a_rule_that_is_stored_but_not_in_force_is_brought_into_force(shared):
    with Rig(NETAPP_NEW, shared) as rig:
        first = Scope(rig)
        first.create(GIB)
        rig.array.fault("resize", times=1)
        scope = Scope(rig)
        scope.create(GIB)
        assert rig.array.clear() == 1
        assert eventually(lambda: rig.array.do("state")["enforced"].get(scope.path.name) == GIB)


def test_an_older_release_tells_failures_by_code_alone(shared):
    with Rig(NETAPP_NEW, shared, {"job_error_object": False, "late_validation": True}) as rig:
        scope = Scope(rig)
        scope.create(GIB)
        assert rig.limit_on_array(scope) == GIB
        rig.array.fault("job", "^POST /api/storage/quota/rules$", how="fail", code=5308573, message="too large")
        with pytest.raises(ApiError) as caught:
            Scope(rig).create(GIB)
        assert "too large" in json.loads(caught.value.body)["msg"]


def test_two_volumes_of_one_name_are_told_apart_by_the_svm(shared, tmp_path):
    for svm, status in (("svm1", "healthy"), (None, "unavailable")):
        with Rig(NETAPP_NEW, shared, options={"netapp_svm_name": svm}) as rig:
            rig.array.do("volume", name="vol1", root=str(tmp_path), svm="svm2")
            info = rig.call("GET", "/volume/hwinfo")
            assert info["status"] == status, info
            if svm is None:
                assert "netapp_svm" in info["status_info"]


def test_a_removed_qtree_of_the_older_generation_is_named(shared):
    with Rig(NETAPP_OLD, shared) as rig:
        rig.array.do("drop-qtree", name="host1")
        info = rig.call("GET", "/volume/hwinfo")
        assert info["status"] in ("unavailable", "degraded", "offline")
        assert "host1" in info["status_info"]


@pytest.mark.parametrize("profile", ["3.14", "4.2", "5.1"])
@pytest.mark.parametrize("missing", [404, 500, 200])
def test_weka_releases(shared, profile, missing):
    settings = {"profile": profile, "no_quota_status": missing, "wrong_inode": True, "health_quotes": profile != "3.14"}
    with Rig(WEKA, shared, settings) as rig:
        scope = Scope(rig)
        scope.create(GIB)
        assert scope.describe() == {"used_bytes": 4096, "limit_bytes": GIB}
        # A directory that an administrator made has no quota.
        bare = Scope(rig)
        bare.path.mkdir()
        bare.path.chmod(0o777)
        assert bare.describe()["limit_bytes"] in (None, 0)
        bare.update(GIB)
        assert rig.limit_on_array(bare) == GIB
        assert rig.call("GET", "/volume/hwinfo")["status"] == "healthy"


def test_a_full_directory_without_quota_cannot_get_one_and_says_so(rigs):
    rig = rigs(WEKA)
    scope = Scope(rig)
    scope.create(GIB)
    upload(FolderOf(rig, scope), "data.bin", b"x")
    rig.array.do("drop-quota", name=scope.path.name)
    with pytest.raises(ApiError) as caught:
        scope.update(GIB)
    assert "not empty" in json.loads(caught.value.body)["msg"]
    # With the array's service that counts what is there, it can.
    rig.array.do("settings", data_services=True)
    scope.update(GIB)
    assert rig.limit_on_array(scope) == GIB
    rig.array.do("settings", data_services=False)


def test_a_scope_without_limit_is_counted_from_the_start(rigs):
    rig = rigs(WEKA)
    scope = Scope(rig)
    scope.create()
    upload(FolderOf(rig, scope), "data.bin", b"x" * 5000)
    assert scope.describe()["used_bytes"] > 5000
    assert f"/{scope.path.name}" in rig.array.do("state")["quotas"]


def test_weka_quotas_by_the_older_call(shared):
    with Rig(WEKA, shared, {"profile": "3.14", "v2_quota_put": False}, {"weka_quota_api": "v1"}) as rig:
        scope = Scope(rig)
        scope.create(GIB)
        assert rig.limit_on_array(scope) == GIB


def test_a_weka_mount_of_a_directory_inside_the_file_system(shared):
    with Rig(WEKA, shared, {"profile": "5.1"}, arguments=["--prefix", "/backend.ai"]) as rig:
        scope = Scope(rig)
        scope.create(GIB)
        state = rig.array.do("state")
        assert state["quotas"] == {f"/backend.ai/{scope.path.name}": GIB}
