"""The node of each module's tests, traced so that `test_trace` can tell what was executed in the whole run."""

import itertools

import pytest

from xfs.node import TRACES, Node

numbers = itertools.count()


@pytest.fixture(scope="module")
def traced():
    """A command that runs another and records its and its children's programs; the process keeps its number."""
    TRACES.mkdir(exist_ok=True)
    log = TRACES / str(next(numbers))
    return ["/usr/bin/strace", "-D", "-ff", "--seccomp-bpf", "-qq", "-e", "trace=execve,execveat", "-e",
            "signal=none", "-o", str(log), "--"]


@pytest.fixture(scope="module")
def node(traced):
    with Node(traced) as node:
        yield node
