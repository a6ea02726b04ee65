"""The switchboard of faults does to a reply what it says; the matrix of faults relies on it."""

import http.client
import json
import ssl
import time
import urllib.error
import urllib.request

import pytest

from arrays.simulators import faults
from arrays.simulators.control import Simulator

VERSIONS = "/api/api_version"


@pytest.fixture(scope="module")
def array(tmp_path_factory):
    with Simulator("flashblade", "--root", tmp_path_factory.mktemp("fb1")) as running:
        yield running


@pytest.fixture(autouse=True)
def no_faults(array):
    yield
    array.clear()
    array.do("certificate", kind="good")


def get(array, timeout=5):
    context = ssl.create_default_context(cafile=array.facts["ca"])
    with urllib.request.urlopen(array.url + VERSIONS, context=context, timeout=timeout) as reply:
        return reply.read()


def test_a_fault_hits_after_skipping_and_so_many_times(array):
    array.fault("status", VERSIONS, skip=1, times=1, status=503)
    assert b"1.8" in get(array)
    with pytest.raises(urllib.error.HTTPError, match="503"):
        get(array)
    assert b"1.8" in get(array)
    assert array.clear() == 1


@pytest.mark.parametrize("kind", ["drop", "drop-after", "truncate"])
def test_connections_break(array, kind):
    array.fault(kind, VERSIONS)
    with pytest.raises((http.client.HTTPException, OSError)):
        get(array)


def test_a_reply_may_be_a_page_or_too_long(array):
    array.fault("html", VERSIONS, times=1)
    assert get(array).startswith(b"<!DOCTYPE html>")
    array.fault("oversize", VERSIONS, times=1)
    assert len(get(array)) > 8 << 20


def test_a_reply_may_come_byte_by_byte(array):
    array.fault("slow", VERSIONS, seconds=0.01)
    started = time.monotonic()
    assert b"1.8" in get(array)
    assert time.monotonic() - started > 0.5


def test_the_trap_counts_who_follows_a_redirect(array):
    array.fault("redirect", VERSIONS)
    assert json.loads(get(array)) == {"trapped": True}
    assert array.calls()["trapped"] == 1


@pytest.mark.parametrize("kind", ["other-name", "selfsigned", "expired"])
def test_certificates_may_be_bad(array, kind):
    array.do("certificate", kind=kind)
    with pytest.raises(urllib.error.URLError, match="CERTIFICATE_VERIFY_FAILED"):
        get(array)


@pytest.mark.parametrize(
    "how, only, expected",
    [
        ("missing", None, {"a": {}, "l": [{}]}),
        ("null", None, {"a": {"n": None, "s": None}, "l": [{"b": None}]}),
        ("type", None, {"a": {"n": ["1"], "s": {"unexpected": True}}, "l": [{"b": ["True"]}]}),
        ("huge", None, {"a": {"n": faults.BIG, "s": "x"}, "l": [{"b": True}]}),
        ("missing", r"^a\.n$", {"a": {"s": "x"}, "l": [{"b": True}]}),
        ("null", "^l$", {"a": {"n": 1, "s": "x"}, "l": None}),
    ],
)
def test_members_are_spoiled(how, only, expected):
    body = json.dumps({"a": {"n": 1, "s": "x"}, "l": [{"b": True}]}).encode()
    assert json.loads(faults.spoil(body, how, only)) == expected


def test_the_control_door_wants_its_secret(array):
    request = urllib.request.Request(array.facts["control"] + "/clear", b"{}", {"X-Control-Secret": "guess"})
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(request)
