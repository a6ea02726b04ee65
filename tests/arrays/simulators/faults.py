"""What can go wrong on purpose: each fault names the calls it hits, how often, and what happens to them.

Separate from the arrays because wrong bytes, wrong JSON and broken connections are the same for all of them. Faults of
an array's own logic (a job that fails) are looked up by the array under a kind of its own.
"""

import json
import re
import threading
import time

BIG = 2**63 + 9
LOGIN_PAGE = b"<!DOCTYPE html><html><head><title>Login</title></head><body><h1>Sign in</h1></body></html>"
# 9 MiB of JSON: above the 8 MiB that a client should be willing to take.
OVERSIZE = 9 << 20


class Dropped(Exception):
    """The connection is to be closed without a reply."""


class Fault:
    """One fault. `match` is searched for in "METHOD /path?query"; `skip` calls pass before `times` calls are hit."""

    def __init__(self, kind, match="", times=None, skip=0, **details):
        self.kind = kind
        self.match = re.compile(match)
        self.times = times
        self.skip = skip
        self.details = details
        self.hits = 0

    def hit(self, subject):
        """Whether the fault strikes now; counts."""
        if not self.match.search(subject) or (self.times is not None and self.hits >= self.times):
            return False
        if self.skip:
            self.skip -= 1
            return False
        self.hits += 1
        return True


class Switchboard:
    """The faults that are switched on."""

    def __init__(self):
        self.lock = threading.Lock()
        self.faults = []

    def add(self, **arguments):
        with self.lock:
            self.faults.append(Fault(**arguments))

    def clear(self):
        """Switches all faults off; returns how many calls they hit."""
        with self.lock:
            hits = sum(fault.hits for fault in self.faults)
            self.faults = []
            return hits

    def hits(self):
        with self.lock:
            return sum(fault.hits for fault in self.faults)

    def striking(self, subject, kinds):
        """The faults of these kinds that hit this call."""
        with self.lock:
            return [fault for fault in self.faults if fault.kind in kinds and fault.hit(subject)]

    def first(self, subject, kind):
        """The details of the first fault of this kind that hits, or None."""
        found = self.striking(subject, (kind,))
        return found[0].details if found else None


BEFORE = ("drop", "status", "html", "redirect", "delay")
AFTER = ("drop-after", "fields", "body", "oversize", "truncate", "slow")


def before(fault, trap_url):
    """What to answer instead of doing the call: (status, headers, body), or None to go on."""
    details = fault.details
    if fault.kind == "drop":
        raise Dropped
    if fault.kind == "delay":
        time.sleep(details.get("seconds", 1))
        return None
    if fault.kind == "html":
        return details.get("status", 200), {"Content-Type": "text/html"}, LOGIN_PAGE
    if fault.kind == "redirect":
        return details.get("status", 307), {"Location": details.get("to", trap_url + "/stolen")}, b""
    body = details.get("body", {})
    headers = {"Content-Type": "application/json", **details.get("headers", {})}
    return details["status"], headers, body.encode() if isinstance(body, str) else json.dumps(body).encode()


def after(fault, reply):
    """Changes the reply of a call that was done."""
    details = fault.details
    if fault.kind == "drop-after":
        raise Dropped
    if fault.kind == "fields":
        reply.body = spoil(reply.body, details["how"], details.get("only"))
    elif fault.kind == "body":
        reply.body = details["text"].encode()
    elif fault.kind == "oversize":
        reply.body = b'{"padding":"' + b"x" * OVERSIZE + b'"}'
    elif fault.kind == "truncate":
        reply.promised = len(reply.body)
        reply.body = reply.body[: len(reply.body) // 2]
    elif fault.kind == "slow":
        reply.seconds_per_byte = details.get("seconds", 0.5)


def spoil(body, how, only=None):
    """The JSON with its members missing, null, of another type or too large; `only` is a pattern of dotted member names."""
    try:
        value = json.loads(body)
    except ValueError:
        return body
    return json.dumps(spoiled(value, how, re.compile(only) if only else None, "")).encode()


def spoiled(value, how, only, name):
    if isinstance(value, list):
        return [spoiled(item, how, only, name) for item in value]
    if not isinstance(value, dict):
        return replacement(value, how)
    result = {}
    for key, item in value.items():
        inner = f"{name}.{key}" if name else key
        is_leaf = not isinstance(item, (dict, list))
        if only is not None and only.search(inner):
            if how != "missing":
                result[key] = replacement(item, how)
        elif only is None and is_leaf:
            if how != "missing":
                result[key] = replacement(item, how)
        elif is_leaf:
            result[key] = item
        else:
            result[key] = spoiled(item, how, only, inner)
    return result


def replacement(value, how):
    if how == "null":
        return None
    if how == "huge":
        return BIG if isinstance(value, (int, float)) and not isinstance(value, bool) else value
    if how == "negative":
        return -7 if isinstance(value, (int, float)) and not isinstance(value, bool) else value
    if how == "type":
        return {"unexpected": True} if isinstance(value, str) else [str(value)]
    return value
