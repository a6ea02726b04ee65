"""Archives beside Info-ZIP's zip: processor time, and size where content is compressed."""

import os
import random
import resource
import subprocess

from harness.agent import Agent
from harness.folder import Folder

from .client import connect, read_head, request
from .measure import Row, Sample, figures, in_turn, sampled

FILES = 1000
SIZE = 100 * 1024
WORDS = 4000


def rows(plan):
    with Agent(place=plan.place) as agent:
        folder = Folder(agent)
        for kind, content in (("random", noise), ("text", text)):
            (folder.path / kind).mkdir()
            chance = random.Random(5)
            for number in range(FILES):
                (folder.path / kind / f"{number:04}").write_bytes(content(chance))
        yield from compared(plan, folder, "random", "-0", 0.4, "stored")
        yield from compared(plan, folder, "text", "-6", 0.2, "compressed")


def noise(chance):
    return chance.randbytes(SIZE)


def text(chance):
    """Words of skewed frequency with numbers in between, as logs and tables have them."""
    words = [f"{'abcdefghijklmnopqrstuvwxyz'[n % 26]}{n * 7919 % 100003:x}" for n in range(WORDS)]
    out, length = [], 0
    while length < SIZE:
        word = words[min(int(chance.paretovariate(0.6)), WORDS) - 1]
        if chance.random() < 0.1:
            word = f"{chance.random():.6f}"
        out.append(word)
        length += len(word) + 1
    return " ".join(out).encode()[:SIZE]


def compared(plan, folder, kind, level, bar, how):
    sizes = {}
    pid = folder.agent.process.pid

    def download():
        sizes["ours"] = archive(folder.archive_url(kind))
        return 1

    def zip_():
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        with subprocess.Popen(["zip", "-q", "-r", level, "-", kind], cwd=folder.path, stdout=subprocess.PIPE) as zipping:
            sizes["zip"] = sum(len(block) for block in iter(lambda: zipping.stdout.read(1 << 20), b""))
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return Sample(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 1.0)

    ours, other = in_turn(plan.rounds, lambda: sampled([pid], download), zip_)
    yield Row("archive", f"CPU, {FILES} files of 100 KiB, {how}", f"zip {level}", "s", bar,
              ours=figures(ours, "cpu"), other=figures(other, "cpu"))
    yield Row("archive", f"size, {FILES} files of 100 KiB, {how}", f"zip {level}", "bytes", 1.03,
              ours=[sizes["ours"]], other=[sizes["zip"]])


def archive(url):
    """Downloads an archive; its length without the framing of chunks."""
    with connect(url) as sock:
        sock.sendall(request("GET", url))
        status, _, rest = read_head(sock)
        if status != 200:
            raise RuntimeError(f"status {status}: {rest[:300]!r}")
        stream, total = Reader(sock, rest), 0
        while size := int(stream.line(), 16):
            stream.skip(size + 2)
            total += size
        return total


class Reader:
    def __init__(self, sock, data):
        self.sock, self.data = sock, data

    def fill(self):
        more = self.sock.recv(1 << 20)
        if not more:
            raise ConnectionError("the archive broke off")
        self.data += more

    def line(self):
        while b"\r\n" not in self.data:
            self.fill()
        line, _, self.data = self.data.partition(b"\r\n")
        return line

    def skip(self, count):
        while count > len(self.data):
            count -= len(self.data)
            self.data = b""
            self.fill()
        self.data = self.data[count:]
