"""Outages: the server's, the agent's, and both. At the end each folder has exactly one final state."""

import re
import time
import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from harness.site import Site
from harness.valkey import Valkey, Watcher, wait_for

DELETES = CLONES = 50
# So that tasks end in the order in which they were begun.
ONE_BY_ONE = "[limits]\ntasks-running = 1\n"
# From the moment when the server is back until the last event is there.
BOUND = 30


def work(site, scope, deleted, cloned):
    """Deletes and clones a hundred folders, as a manager does: a request that fails is sent again."""
    for _ in range(DELETES):
        vfid = site.make_folder(scope)
        deleted.append(vfid)
        site.delete(vfid)
        source, target = site.make_folder(scope), f"user:{scope}/{uuid.uuid4().hex}"
        cloned.append((source, target))
        site.call("POST", "/folder/clone", src_volume="local", src_vfid=source, dst_vfid=target, dst_volume=None)


def final_states(valkey, deleted, cloned):
    """The names of all events for each folder that was worked on."""
    states = {vfid: [] for vfid in (*deleted, *(source for source, _ in cloned))}
    for event in valkey.entries():
        states[event.vfid].append(event.name)
    return states


def untold(states, site):
    return [vfid for vfid, names in states.items() if not names], site.leftovers()


@pytest.mark.parametrize("agent_killed", [False, True], ids=["agent-lives", "agent-killed"])
@pytest.mark.parametrize("moment", ["before", "during", "after"])
def test_every_folder_ends_in_one_state_whenever_the_server_is_killed(valkey, events, moment, agent_killed):
    with Site(tables=events + ONE_BY_ONE) as site:
        scope, deleted, cloned = uuid.uuid4(), [], []
        if moment == "before":
            valkey.kill()
        pool = ThreadPoolExecutor(1)
        working = pool.submit(work, site, scope, deleted, cloned)
        if moment == "during":
            wait_for(lambda: len(cloned) >= CLONES // 3, 60, "a third of the work")
            valkey.kill()
        if agent_killed:
            wait_for(lambda: len(cloned) >= CLONES // 2, 60, "half of the work")
            site.agent.restart()
        working.result()
        if moment == "after":
            valkey.kill()
        pending = site.agent.metric("events_pending")
        time.sleep(1)
        valkey.start()
        back = time.monotonic()

        def all_told():
            return all(final_states(valkey, deleted, cloned).values()) and not site.leftovers()

        wait_for(all_told, BOUND, lambda: untold(final_states(valkey, deleted, cloned), site))
        took = time.monotonic() - back
        time.sleep(2)
        states = final_states(valkey, deleted, cloned)
        print(f"\nkilled {moment}: {len(states)} folders, {pending:.0f} waited, all told {took:.1f} s after the return")
        assert len(states) == DELETES + CLONES
        assert {state for names in states.values() for state in names} == {"vfolder_deletion_success", "vfolder_clone_success"}
        # A request whose reply was lost is sent again and becomes a task of its own, which may say the same again.
        repeated = [vfid for vfid, names in states.items() if len(names) != 1]
        assert len(repeated) <= (1 if agent_killed else 0), repeated
        assert all(len(set(names)) == 1 for names in states.values())
        assert all((site.place(target) / "d0" / "f0").exists() for _, target in cloned)
        assert not any(site.place(vfid).exists() for vfid in deleted)
        if not agent_killed:
            in_order = [event.vfid for event in valkey.entries() if event.vfid in set(deleted)]
            assert in_order == sorted(in_order, key=deleted.index)


def test_a_task_is_told_to_have_ended_exactly_once_however_often_agents_die(valkey, events):
    with Site(tables=events) as site, Watcher(valkey) as watcher:
        scope, tasks = uuid.uuid4(), []
        vfids = [site.make_folder(scope) for _ in range(60)]
        for number, vfid in enumerate(vfids):
            tasks.append(site.delete(vfid))
            if number % 12 == 11:
                # Between the end of the purge and the event, and in the midst of events.
                site.agent.restart()
        wait_for(lambda: len(valkey.entries()) >= len(vfids) and not site.leftovers(), BOUND, site.leftovers)
        time.sleep(2)
        told = Counter(message.task for message in watcher.messages if message.final)
        assert told == Counter(tasks)
        assert Counter(event.vfid for event in valkey.entries()) == Counter(vfids)


def test_what_exceeds_the_outbox_is_counted_and_named_in_the_log(valkey, events):
    with Site(tables=events + "outbox-size = 100\n") as site:
        valkey.kill()
        scope = uuid.uuid4()
        for _ in range(105):
            site.delete(f"user:{scope}/{uuid.uuid4().hex}")
        wait_for(lambda: site.agent.metric("events_dropped_total") == 5, 10, "five lost events")
        # Those that are being tried at the moment are not in the queue.
        assert site.agent.metric("events_pending") in range(100, 106)
        wait_for(lambda: site.agent.metric("events_connected") == 0, 10, "a lost connection")
        assert site.agent.metric("events_oldest_seconds") > 0
        lost = [line for line in site.agent.log.read_text().splitlines() if "will not be told" in line]
        assert len(lost) == 5 and all("events.outbox-size" in line for line in lost)
        valkey.start()
        wait_for(lambda: len(valkey.entries()) == 100, BOUND, "the rest")
        assert site.agent.metric("events_published_total") == 100


def test_the_examples_for_alerts_name_figures_that_there_are(events):
    examples = Path(__file__).parents[2] / "packaging/examples"
    with Site(tables=events) as site:
        for name in ("prometheus-alerts.yml", "cluster.md"):
            named = set(re.findall(r"storage_agent_events_\w+", (examples / name).read_text()))
            assert named and named <= site.agent.metrics().keys(), name


def login(*rights):
    """A server on which the agent may do what `rights` say, and the table that has it log in there."""
    valkey = Valkey(settings=[f"user agent on >pass {' '.join(rights)}", "user default on nopass ~* &* +@all"])
    return valkey, f'[events]\nvalkey-addr = "127.0.0.1:{valkey.port}"\nuser = "agent"\npassword = "pass"\n'


@pytest.mark.parametrize(
    ("rights", "said"),
    [
        (["~*", "&*", "+@all", "-eval", "-@scripting"], "refuses scripts"),
        (["~events", "&*", "+@all"], "refuses scripts"),
        (["~*", "resetchannels", "+@all"], "those who watch tasks are told nothing"),
    ],
    ids=["no-scripts", "stream-alone", "no-channel"],
)
def test_a_login_with_fewer_rights_tells_managers_nevertheless(rights, said):
    valkey, table = login(*rights)
    with valkey, Site(tables=table + ONE_BY_ONE) as site:
        vfids = [site.make_folder() for _ in range(3)]
        for vfid in vfids:
            site.delete(vfid)
        wait_for(lambda: len(valkey.entries()) >= 3, 10, "the events")
        wait_for(lambda: not site.leftovers(), 10, site.leftovers)
        assert [event.vfid for event in valkey.entries()] == vfids
        assert site.agent.log.read_text().count(said) == 1


def test_what_a_server_cannot_store_is_told_when_it_can(valkey, events):
    valkey.client().set("events", "no stream")
    with Site(tables=events) as site:
        vfid = site.make_folder()
        site.delete(vfid)
        wait_for(lambda: "events cannot be published" in site.agent.log.read_text(), 15, "the failure in the log")
        valkey.client().delete("events")
        wait_for(lambda: valkey.entries() and not site.leftovers(), 15, site.leftovers)
        assert [event.vfid for event in valkey.entries()] == [vfid]
