"""Uploads that meet a limit."""

import random
import threading

from conftest import CephFolder

from harness.folder import sha256
from harness.transfer import download, offset, patch

MIB = 1 << 20
# No multiple of anything that the agent reads, writes or asks for at once.
LIMIT = 20 * MIB + 12_345
SIZE = 48 * MIB
# What the agent notes beside the staging file of an unfinished upload counts too.
NOTE = 20


def test_an_upload_stops_at_the_limit_and_goes_on_when_it_is_raised(folder):
    data = random.Random(5).randbytes(SIZE)
    folder.limit(LIMIT)
    url = folder.upload_url("large.bin", SIZE)
    status, stored = patch(url, 0, data)
    assert status == 507
    # Clients of CephFS alone would have let far more through.
    assert LIMIT - NOTE <= stored <= LIMIT
    assert offset(url) == (200, stored)
    staged = [path for path in (folder.path / ".upload").iterdir() if path.stat().st_size]
    assert [path.read_bytes() == data[:stored] for path in staged] == [True]

    status, again = patch(url, stored, data[stored:])
    assert status == 507 and stored <= again <= LIMIT, "nothing has changed"

    folder.limit(2 * SIZE)
    assert patch(url, again, data[again:]) == (204, SIZE)
    assert sha256(download(folder.download_url("large.bin"))) == sha256(data)


def test_uploads_at_the_same_time_share_one_limit(agent):
    folder = CephFolder(agent, options={"initial_max_size_for_quota_scope": LIMIT})
    urls = [folder.upload_url(f"{number}.bin", SIZE) for number in range(4)]
    replies = {}

    def send(url):
        replies[url] = patch(url, 0, bytes(SIZE))

    senders = [threading.Thread(target=send, args=(url,)) for url in urls]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()
    assert {status for status, _ in replies.values()} == {507}
    assert sum(stored for _, stored in replies.values()) <= LIMIT
    assert [offset(url) for url in urls] == [(200, replies[url][1]) for url in urls]
