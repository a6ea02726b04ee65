"""The simulated WEKA cluster: there is no official Python client, so that its promises are tested here.

Shapes are those of the vendor's OpenAPI document and of the types in its CSI driver.
"""

import json
import os
import ssl
import urllib.error
import urllib.request
from urllib.parse import urlencode

import pytest

from arrays.simulators.control import Simulator


class Client:
    """As little as is needed to call."""

    def __init__(self, array):
        self.array = array
        self.context = ssl.create_default_context(cafile=array.facts["ca"])
        self.token = ""

    def call(self, method, path, body=None, form=None):
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        content = json.dumps(body).encode() if body is not None else None
        if form is not None:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
            content = urlencode(form).encode()
        request = urllib.request.Request(self.array.url + path, content, headers, method=method)
        try:
            with urllib.request.urlopen(request, context=self.context) as reply:
                return reply.status, json.loads(reply.read())
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())

    def login(self, **credentials):
        status, answer = self.call("POST", "/api/v2/login", {"username": "admin", "password": "weka-pass1!", **credentials})
        if status == 200:
            self.token = answer["data"]["access_token"]
        return status, answer


@pytest.fixture
def array(tmp_path):
    with Simulator("weka", "--root", tmp_path) as running:
        yield running


@pytest.fixture
def client(array):
    made = Client(array)
    made.login()
    return made


@pytest.fixture
def quotas(client):
    (fs,) = client.call("GET", "/api/v2/fileSystems")[1]["data"]
    return f"/api/v2/fileSystems/{fs['uid']}/quota"


LIMIT = {"hard_limit_bytes": 1000000000, "soft_limit_bytes": 0, "grace_seconds": 0}


def test_tokens_end_and_refresh_tokens_work_once(array, client):
    _, answer = client.login()
    assert client.call("GET", "/api/v2/cluster")[0] == 200
    array.do("expire")
    assert client.call("GET", "/api/v2/cluster") == (401, {"data": "Unauthorized"})
    refresh = {"refresh_token": answer["data"]["refresh_token"]}
    status, renewed = client.call("POST", "/api/v2/login/refresh", refresh)
    client.token = renewed["data"]["access_token"]
    assert (status, client.call("GET", "/api/v2/cluster")[0]) == (200, 200)
    assert client.call("POST", "/api/v2/login/refresh", refresh)[0] == 401


def test_login_takes_forms_and_refuses_wrong_credentials(client):
    form = {"username": "admin", "password": "weka-pass1!", "org": "Root"}
    assert client.call("POST", "/api/v2/login", form=form)[0] == 200
    assert client.login(password="wrong")[0] == 401
    assert client.login(org="Other")[0] == 401


def test_a_quota_lives_by_the_inode(client, quotas, tmp_path):
    (tmp_path / "scope").mkdir()
    one = f"{quotas}/{os.stat(tmp_path / 'scope').st_ino}"
    assert client.call("GET", one) == (404, {"message": "Directory has no quota"})
    assert client.call("PUT", one, {"hard_limit_bytes": 1})[0] == 400
    assert client.call("PUT", one + "?" + urlencode(LIMIT))[0] == 200
    (tmp_path / "scope" / "file").write_bytes(b"x" * 5000)
    quota = client.call("GET", one)[1]["data"]
    assert (quota["used_bytes"], quota["hard_limit_bytes"], quota["soft_limit_bytes"]) == (12288, 1000001536, None)
    assert client.call("PATCH", one, {"hard_limit_bytes": 0})[1]["data"]["hard_limit_bytes"] is None
    assert client.call("DELETE", one)[1]["data"]["cw_task_id"] == 3
    # Without the service that counts, a directory must be empty to get a quota.
    assert client.call("PUT", one, LIMIT)[0] == 400


@pytest.mark.parametrize("profile", ["3.14", "4.2", "5.1"])
def test_releases_differ_in_shape(array, client, quotas, tmp_path, profile):
    array.do("settings", profile=profile, page_cap=2)
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
        inode = os.stat(tmp_path / name).st_ino
        client.call("PUT", f"{quotas}/{inode}", LIMIT)
    single = client.call("GET", f"{quotas}/{inode}")[1]["data"]
    listed = client.call("GET", quotas)[1]
    resolved, _ = client.call("GET", quotas.removesuffix("quota") + "resolvePath?path=/a")
    if profile == "3.14":
        assert single[f"0x{inode:x}:0"]["used_bytes"] == 4096
        assert len(listed["data"]) == 3
    else:
        assert single["total_bytes" if profile == "5.1" else "used_bytes"] == 4096
        assert (len(listed["data"]), listed["data"][0]["total_bytes"]) == (2, 4096)
        assert listed["data"][0]["quota_id"].startswith("DIR:" if profile == "5.1" else "0x")
        rest = client.call("GET", f"{quotas}?next_token={listed['next_token']}")[1]
        assert (len(rest["data"]), "next_token" in rest) == (1, False)
    assert resolved == (200 if profile == "5.1" else 404)


def test_statistics_of_the_cluster_and_of_one_file_system(client):
    times = "start_time=2026-01-01T00:00:00Z&end_time=2026-01-01T00:02:00Z"
    buckets = client.call("GET", f"/api/v2/stats?{times}&stat=ops.READS")[1]["data"]["all"]["ops"]
    assert [bucket["stats"] for bucket in buckets] == [{"READS": 120.5}] * 2
    one = "category=fs_stats&stat=READS&stat=WRITE_LATENCY&param%5BfS%5D=2"
    buckets = client.call("GET", f"/api/v2/stats?{times}&{one}")[1]["data"]["all"]["fs_stats"]
    assert buckets[0]["stats"] == {"READS[fS: 2]": 120.5, "WRITE_LATENCY[fS: 2]": 520.25}
    malformed = times.replace("00Z", "00%2B00:00Z", 1)
    assert client.call("GET", f"/api/v2/stats?{malformed}&stat=ops.READS")[0] == 400


def test_version_one_reports_errors_with_status_200(array, client, tmp_path):
    (tmp_path / "scope").mkdir()
    parameters = {"inode_context": os.stat(tmp_path / "scope").st_ino, "hard_limit_bytes": 4096}
    call = {"id": 1, "jsonrpc": "2.0", "method": "set_directory_quota", "params": parameters}
    assert "result" in client.call("POST", "/api/v1", call)[1]
    assert array.do("state")["quotas"] == {"/scope": 4096}
    status, answer = client.call("POST", "/api/v1", {**call, "method": "nothing"})
    assert (status, answer["error"]["code"]) == (200, -32601)
