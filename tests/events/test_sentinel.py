"""Failover: a primary dies, Sentinels make its replica the primary, and no event is lost or told twice."""

import time
import uuid
from collections import Counter

from harness.site import Site
from harness.valkey import Valkey, wait_for


def test_events_follow_a_failover(tmp_path):
    with Valkey() as primary, Valkey(settings=[f"replicaof 127.0.0.1 {primary.port}"]) as replica:
        monitor = [
            f"sentinel monitor main 127.0.0.1 {primary.port} 1",
            "sentinel down-after-milliseconds main 1000",
            "sentinel failover-timeout main 5000",
        ]
        with Valkey(settings=monitor, sentinel=True) as sentinel:
            wait_for(lambda: replica.client().info("replication")["master_link_status"] == "up", 10, "replication")
            wait_for(lambda: sentinel.client().sentinel_slaves("main"), 20, "the Sentinel's knowledge of the replica")
            dead = "127.0.0.1:1"
            table = f'[events]\nsentinel-addr = ["{dead}", "127.0.0.1:{sentinel.port}"]\nsentinel-service = "main"\n'
            with Site(tables=table) as site:
                scope = uuid.uuid4()
                vfids = [site.make_folder(scope) for _ in range(40)]
                for number, vfid in enumerate(vfids):
                    site.delete(vfid)
                    if number == 20:
                        # The first events are on their way.
                        wait_for(lambda: primary.client().xlen("events"), 10, "the first event")
                        primary.kill()
                        killed = time.monotonic()
                wait_for(lambda: replica.client().role()[0] in (b"master", "master"), 30, "the failover")
                wait_for(lambda: len(replica.entries()) >= len(vfids), 30, lambda: len(replica.entries()))
                print(f"\nall told {time.monotonic() - killed:.1f} s after the primary's death")
                time.sleep(2)
                assert Counter(event.vfid for event in replica.entries()) == Counter(vfids)
                wait_for(lambda: not site.leftovers(), 10, site.leftovers)
