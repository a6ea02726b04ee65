"""The agent is killed at random points under load: nothing acknowledged is lost, nothing half-made is ever seen."""

import os
import random
import time

from hold.guarded import LONG, Guarded, table
from hold.loads import Trees, Uploads, running

KILLS = 1000 if LONG else 200
SEED = int(os.environ.get("HOLD_SEED", time.time_ns() % 1_000_000))
# Sessions that were created for nobody: their request was never answered.
STALE = "stale-factor = 1"


def staged(volume):
    """What is in the making or on its way out, anywhere on the volume."""
    found = []
    # os.walk passes over what goes meanwhile.
    for folder, directories, files in os.walk(volume):
        if os.path.basename(folder) == ".trash":
            found += [os.path.join(folder, name) for name in directories + files]
        elif os.path.basename(folder) == ".upload":
            found += [os.path.join(folder, name) for name in files if not name.endswith(".done")]
    return found


def wait_for(condition, seconds, what):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what()}"
        time.sleep(0.05)


def test_killed_at_random_points(capsys):
    choose = random.Random(SEED)
    with Guarded(tables=f"[upload]\n{STALE}\n") as agent:
        uploads = [Uploads(agent, SEED + number) for number in range(3)]
        trees = [Trees(agent, SEED + 10 + number) for number in range(3)]
        loads = uploads + trees
        interrupted, began = {Uploads: 0, Trees: 0}, time.monotonic()
        with running(loads):
            for kill in range(KILLS):
                time.sleep(choose.uniform(0.005, 0.4))
                assert agent.process.poll() is None, f"the agent ended by itself before kill {kill}"
                agent.kill()
                for load in loads:
                    interrupted[type(load)] += load.inspect()
                agent.start()
        seconds = time.monotonic() - began
        tasks = agent.call("GET", "/tasks")["tasks"]
        assert {task["state"] for task in tasks} <= {"done"}, tasks
        left = staged(agent.volume)
        assert not [path for path in left if "/.trash/" in path], left
        # What nobody can go on with is swept by age: here, at the next start.
        agent.stop()
        agent.config.write_text(agent.config.read_text().replace('session-expire = "1d"', 'session-expire = "1s"'))
        time.sleep(2.1)
        agent.start()
        wait_for(lambda: not staged(agent.volume), 20, lambda: staged(agent.volume))
    with capsys.disabled():
        print()
        table(seed=SEED, kills=KILLS, seconds=round(seconds))
        table(
            uploads_completed=sum(load.done for load in uploads),
            clones_made_and_deleted=sum(load.done for load in trees),
            uploads_that_a_kill_interrupted=interrupted[Uploads],
            tasks_that_a_kill_interrupted=interrupted[Trees],
            orders_without_an_answer=sum(load.unanswered for load in trees),
            abandoned_sessions_swept=len(left),
        )
    assert min(interrupted.values()) >= KILLS // 10, "the kills have to meet work in progress"
