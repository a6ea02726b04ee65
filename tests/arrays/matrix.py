"""The matrix of faults: every operation of ours, each array call that it makes, each thing that can go wrong with it.

Cases run in parallel, each on a rig of its own, because most of their time is waiting for a client that gives up slowly.
"""

import json
import os
import queue
import re
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from arrays.sites import NETAPP_NEW, NETAPP_OLD, PURE_1, PURE_2, WEKA, Rig, Scope, eventually, secrets_of_all
from harness.agent import ApiError

GIB = 1 << 30
# Of one array call with its repetitions, as configured here; room for an attempt after a pause of a second.
PATIENCE = "2.5s"
# Of the whole reply, seconds: an operation makes several calls and may have to take back what it did.
BOUND = 30
# How long after the fault all must be well again, seconds: refused credentials are not tried again at once.
RECOVERY = 15
RIGS = {NETAPP_NEW: 10, NETAPP_OLD: 4, WEKA: 6, PURE_1: 3, PURE_2: 3}
FIGURE = range(1 << 63)

# Name, kind and details of each fault of a single call.
FAULTS = [
    ("refused", "status", {"status": 401, "body": {"error": {"code": "6691623", "message": "not authorized"}}}),
    ("forbidden", "status", {"status": 403, "body": {"error": {"code": "6", "message": "not authorized for that command"}}}),
    ("busy once", "status", {"status": 503, "headers": {"Retry-After": "1"}, "body": {"message": "busy"}, "times": 1}),
    ("broken", "status", {"status": 500, "body": {"message": "internal error"}}),
    ("html", "html", {}),
    ("missing", "fields", {"how": "missing"}),
    ("null", "fields", {"how": "null"}),
    ("type", "fields", {"how": "type"}),
    (">2^63", "fields", {"how": "huge"}),
    ("negative", "fields", {"how": "negative"}),
    ("redirect", "redirect", {}),
    ("slow", "slow", {"seconds": 0.4}),
    ("too long", "oversize", {}),
    ("cut off", "truncate", {}),
    ("no reply", "drop", {}),
    ("done, no reply", "drop-after", {}),
]
# Of the jobs that changes start on ONTAP.
JOB_FAULTS = [
    ("job fails", "job", {"how": "fail"}),
    ("job lies", "job", {"how": "fail-after"}),
    ("job hangs", "job", {"how": "hang"}),
    ("job paused", "job", {"how": "hang", "state": "paused"}),
    ("job vanishes", "job", {"how": "vanish"}),
]
# Of the connection as a whole.
WHOLE = ["other name", "self-signed", "expired cert", "session ends"]
# Faults that nobody outside should notice.
ONCE = ("busy once", "session ends")
COLUMNS = [name for name, *_ in FAULTS + JOB_FAULTS] + WHOLE


class Operation:
    """Something a manager asks for. `settle` repeats it without a fault and checks that all is as it should be."""

    def __init__(self, name, act, prepare=None, settle=None, truth=None, right=None):
        self.name = name
        self.act = act
        self.prepare = prepare or (lambda rig: None)
        self.settle = settle
        # What must hold after a reply of success, whatever went wrong underway.
        self.truth = truth or (lambda rig, scope: True)
        # Whether a successful reply's content may be believed.
        self.right = right or (lambda reply: reply is None)


def made(rig):
    scope = Scope(rig)
    scope.create(GIB)
    return scope


def limit_is(limit):
    return lambda rig, scope: eventually(lambda: rig.limit_on_array(scope) == limit, 3)


def settle_limit(limit):
    def settle(rig, scope):
        scope.update(limit)
        assert rig.limit_on_array(scope) == limit
        assert scope.path.is_dir()
        assert scope.path.stat().st_uid == rig.base.stat().st_uid
        assert eventually(lambda: scope.describe()["limit_bytes"] == limit), scope.describe()

    return settle


def settle_unset(rig, scope):
    scope.unset()
    assert rig.limit_on_array(scope) is None
    assert eventually(lambda: not scope.describe()["limit_bytes"])


def is_gone(rig, scope):
    state = rig.array.do("state")
    name = scope.path.name
    left = [name in state.get("qtrees", {}), name in state.get("rules", {}), f"/{name}" in state.get("quotas", {})]
    return not scope.path.exists() and not any(left)


def settle_removed(rig, scope):
    try:
        scope.remove()
    except ApiError as error:
        assert error.status == 404, error
    assert is_gone(rig, scope), rig.array.do("state")


def describes(reply):
    """Figures are sizes or unknown, never nonsense."""
    figures = [reply["used_bytes"], reply["limit_bytes"]]
    return all(figure is None or figure in FIGURE for figure in figures) and reply["limit_bytes"] in (GIB, 0, None)


def settle_described(rig, scope):
    assert scope.describe()["limit_bytes"] == GIB


def measures(reply):
    """The array's figures, or the kernel's of the mount."""
    kernel = os.statvfs(tempfile.gettempdir())
    return reply["capacity_bytes"] in (1 << 40, kernel.f_blocks * kernel.f_frsize) and 0 < reply["used_bytes"]


def settle_measured(rig, _):
    assert rig.call("GET", "/folder/fs-usage")["capacity_bytes"] == 1 << 40


def performs(reply):
    return all(0 <= value < 1 << 63 for value in reply["metric"].values())


def settle_performed(rig, _):
    assert rig.call("GET", "/volume/performance-metric")["metric"]["iops_write"] == 40


def tells_health(reply):
    texts = all(isinstance(value, str) for value in reply["metadata"].values())
    return texts and reply["status"] in ("healthy", "degraded", "offline", "unavailable")


def settle_healthy(rig, _):
    assert rig.call("GET", "/volume/hwinfo")["status"] == "healthy"


def host_limit_is(limit):
    return lambda rig, _: eventually(lambda: rig.array.do("state")["rules"].get("host1") == limit, 3)


def settle_host(rig, _):
    rig.call("PATCH", "/volume/quota", vfid=None, size_bytes=5 * GIB)
    assert host_limit_is(5 * GIB)(rig, None)
    assert rig.call("GET", "/volume/quota", vfid=None) == 5 * GIB


ABOUT_SCOPES = [
    Operation("create", lambda rig, s: s.create(GIB), Scope, settle_limit(GIB), limit_is(GIB)),
    Operation("describe", lambda rig, s: s.describe(), made, settle_described, right=describes),
    Operation("update", lambda rig, s: s.update(2 * GIB), made, settle_limit(2 * GIB), limit_is(2 * GIB)),
    Operation("unset", lambda rig, s: s.unset(), made, settle_unset, limit_is(None)),
    Operation("remove", lambda rig, s: s.remove(), made, settle_removed, lambda rig, s: eventually(lambda: is_gone(rig, s), 3)),
]
ABOUT_VOLUMES = [
    Operation("hwinfo", lambda rig, _: rig.call("GET", "/volume/hwinfo"), settle=settle_healthy, right=tells_health),
    Operation("fs-usage", lambda rig, _: rig.call("GET", "/folder/fs-usage"), settle=settle_measured, right=measures),
    Operation(
        "metric", lambda rig, _: rig.call("GET", "/volume/performance-metric"), settle=settle_performed, right=performs
    ),
]
ABOUT_HOSTS = [
    Operation(
        "host limit",
        lambda rig, _: rig.call("PATCH", "/volume/quota", vfid=None, size_bytes=6 * GIB),
        settle=settle_host,
        truth=host_limit_is(6 * GIB),
    ),
]
OPERATIONS = {
    NETAPP_NEW: ABOUT_SCOPES + ABOUT_VOLUMES,
    NETAPP_OLD: ABOUT_HOSTS + [ABOUT_VOLUMES[0], ABOUT_VOLUMES[2]],
    WEKA: ABOUT_SCOPES + ABOUT_VOLUMES,
    PURE_1: ABOUT_VOLUMES,
    PURE_2: ABOUT_VOLUMES,
}


def patiently(attempt):
    """Repeats it until all is well, for a while."""
    deadline = time.monotonic() + RECOVERY
    while True:
        try:
            return attempt()
        except (ApiError, AssertionError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.3)


class Case:
    """One cell of the matrix. `mistakes` is empty when all went as it should.

    Calls that an agent makes only once (`fresh`) are met by one that has just started, on an array without quotas.
    """

    def __init__(self, site, operation, route, fault, fresh=False):
        self.site = site
        self.operation = operation
        self.route = route
        self.fault = fault
        self.fresh = fresh
        self.met = True
        self.outcome = "-"
        self.seconds = 0.0
        self.mistakes = []

    def pattern(self):
        """The route as a regular expression over a call."""
        return "^" + re.escape(self.route).replace(r"\{\}", "[^/?]+") + r"(\?|$)"

    def run(self, rig):
        try:
            if self.fresh:
                refresh(rig)
            scope = patiently(lambda: self.operation.prepare(rig))
            if self.fault[0] in ONCE:
                # What the case before made the client give up on is not tried again within a second.
                time.sleep(1.1)
            self.switch_on(rig)
            self.ask(rig, scope)
            hits = rig.array.clear()
            self.met = hits > 0 or self.fault[0] in WHOLE
            rig.array.do("certificate", kind="good")
            patiently(lambda: self.operation.settle(rig, scope))
            if rig.array.calls()["trapped"]:
                self.mistakes.append("followed a redirect")
        except Exception as error:  # noqa: BLE001 - a row of the table must say what broke
            self.mistakes.append(f"afterwards: {error!r}")
        finally:
            rig.array.clear()
            rig.array.do("certificate", kind="good")

    def switch_on(self, rig):
        name, kind, details = self.fault
        certificates = {"other name": "other-name", "self-signed": "selfsigned", "expired cert": "expired"}
        if name in certificates:
            rig.array.do("certificate", kind=certificates[name])
        elif name == "session ends":
            rig.array.do("expire")
        elif kind == "job":
            rig.array.fault("job", "^" + re.escape(self.route).replace(r"\{\}", "[^/?]+") + "$", **details)
        else:
            if "login" in self.route:
                rig.array.do("expire", **({"also_refresh": True} if self.route.endswith("/api/v2/login") else {}))
            rig.array.fault(kind, self.pattern(), **details)

    def ask(self, rig, scope):
        started = time.monotonic()
        try:
            reply = self.operation.act(rig, scope)
            self.outcome = "ok"
            if not self.operation.right(reply):
                self.mistakes.append(f"believed {reply!r}")
        except ApiError as error:
            self.outcome = str(error.status)
            self.judge(error)
        self.seconds = time.monotonic() - started
        if self.seconds > BOUND:
            self.mistakes.append(f"took {self.seconds:.0f} s")
        if self.outcome == "ok" and not self.operation.truth(rig, scope):
            self.mistakes.append("reported success that did not happen")

    def judge(self, error):
        """An error reply is a JSON object with a sentence that tells no secret."""
        try:
            message = json.loads(error.body)["msg"]
        except (ValueError, KeyError, TypeError):
            self.mistakes.append(f"unreadable reply {error.body!r}")
            return
        if not message or any(secret in error.body.decode() for secret in secrets_of_all()):
            self.mistakes.append(f"says {message!r}")
        # "No metric" is a proper answer; "no such scope" would be a lie.
        if error.status < 400 or (error.status == 404 and self.operation.name != "metric"):
            self.mistakes.append(f"status {error.status} for an array's fault")
        if self.fault[0] in ONCE:
            self.mistakes.append(f"did not come over it: {message}")

    def text(self):
        if not self.met and not self.mistakes:
            return "(unmet)"
        return f"{'!' if self.mistakes else ''}{self.outcome} {self.seconds:.1f}"


def refresh(rig):
    """An agent that knows nothing yet of an array that knows no quotas yet."""
    if rig.site.module == "ontap":
        rig.array.do("reset-quotas")
    rig.agent.stop()
    rig.agent.start()


def calls_of(rig, operation, before):
    """The array calls of an operation after this has been done."""
    before()
    scope = operation.prepare(rig)
    rig.array.calls(reset=True)
    operation.act(rig, scope)
    return set(rig.array.calls()["routes"])


def routes_of(rig, operation):
    """The array calls that an operation makes when nothing is wrong: always, and only the first time."""
    first = calls_of(rig, operation, lambda: refresh(rig))
    always = calls_of(rig, operation, lambda: None)
    if rig.site.module != "ontap" and operation.name in ("describe", "hwinfo"):
        for arguments in ({}, {"also_refresh": True} if rig.site is WEKA else {}):
            scope = operation.prepare(rig)
            rig.array.do("expire", **arguments)
            rig.array.calls(reset=True)
            operation.act(rig, scope)
            always |= {route for route in rig.array.calls()["routes"] if "login" in route}
    return sorted((route, route not in always) for route in first | always)


def cases_of(site, rig):
    """All cells of a site."""
    for operation in OPERATIONS[site]:
        for route, fresh in routes_of(rig, operation):
            for fault in FAULTS:
                yield Case(site, operation, route, fault, fresh)
            if site.module == "ontap" and not route.startswith("GET"):
                for fault in JOB_FAULTS:
                    yield Case(site, operation, route, fault, fresh)
        for name in WHOLE:
            if name != "session ends" or site.module != "ontap":
                yield Case(site, operation, "(any call)", (name, "", {}))


def new_rig(site, shared):
    options = {f"{site.prefix}_request_timeout": PATIENCE}
    if site.module == "ontap":
        options["netapp_job_timeout"] = "2s"
    return Rig(site, shared, {}, options, tools=False)


def run_site(site, shared, sink):
    """Runs a site's cases on its rigs; each rig serves one case at a time."""
    with ThreadPoolExecutor(RIGS[site]) as starting:
        rigs = list(starting.map(lambda _: new_rig(site, shared).__enter__(), range(RIGS[site])))
    try:
        cases = list(cases_of(site, rigs[0]))
        sink[site] = cases
        left = queue.SimpleQueue()
        for case in cases:
            left.put(case)

        def work(rig):
            while True:
                try:
                    case = left.get_nowait()
                except queue.Empty:
                    return
                case.run(rig)

        with ThreadPoolExecutor(len(rigs)) as workers:
            list(workers.map(work, rigs))
    finally:
        for rig in rigs:
            rig.__exit__(None, None, None)


def run_all(shared, sites=tuple(OPERATIONS)):
    """All cases by site; the sites run side by side."""
    results, errors = {}, []

    def run(site):
        try:
            run_site(site, shared, results)
        except Exception as error:  # noqa: BLE001 - told by the test that asks for this site
            errors.append((site, error))

    threads = [threading.Thread(target=run, args=(site,)) for site in sites]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results, dict(errors)


def table(cases):
    """The matrix as text: a line for each operation and call, a column for each fault."""
    columns = [name for name in COLUMNS if any(case.fault[0] == name for case in cases)]
    rows = {}
    for case in cases:
        rows.setdefault((case.operation.name, case.route), {})[case.fault[0]] = case.text()
    wide = [max(len(name), 8) for name in columns]
    head = " ".join(name.ljust(width) for name, width in zip(columns, wide))
    lines = [f"{'operation':10} {'array call':44} {head}"]
    for (operation, route), cells in rows.items():
        line = " ".join(cells.get(name, "").ljust(width) for name, width in zip(columns, wide))
        lines.append(f"{operation:10} {route:44} {line}".rstrip())
    return "\n".join(lines)
