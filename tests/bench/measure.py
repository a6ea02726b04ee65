"""What a measurement is: two sides in turn, the ratio of each pair, the median of the ratios.

The sides of a pair run one after the other, so that what else the machine does meets both. Processor time is the
kernel's own account of a process in nanoseconds, threads that have ended included; it hardly depends on how busy the
machine is, which wall time does.
"""

import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path

MIB = 1 << 20
GIB = 1 << 30


def cpu_seconds(pids):
    """User and system seconds that these processes have used so far."""
    # The clock of another process is named by its pid as the CPUCLOCK_SCHED kind of clock_getcpuclockid(3) does it.
    return sum(time.clock_gettime((~pid << 3) | 2) for pid in pids)


def reset_peak(pids):
    """Makes peak_mib start anew; needs root, and without it the peak is that of the process's life."""
    for pid in pids:
        try:
            Path(f"/proc/{pid}/clear_refs").write_text("5")
        except PermissionError:
            pass


def status_mib(pids, field):
    """The sum of a field of /proc/PID/status in MiB: `VmHWM` for the peak, `VmRSS` for now."""
    total = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith(field + ":"):
                total += int(line.split()[1])
    return total / 1024


@dataclass
class Sample:
    """One run of one side."""

    cpu: float
    wall: float
    peak: float = 0.0
    work: float = 1.0
    """How many units of work were done: GiB, requests."""

    @property
    def cpu_per_unit(self):
        return self.cpu / self.work

    @property
    def wall_per_unit(self):
        return self.wall / self.work


def sampled(pids, action):
    """Runs the action, which returns the work that it did."""
    reset_peak(pids)
    cpu, begin = cpu_seconds(pids), time.perf_counter()
    work = action()
    return Sample(cpu_seconds(pids) - cpu, time.perf_counter() - begin, status_mib(pids, "VmHWM"), work)


@dataclass
class Row:
    """One line of the report."""

    group: str
    name: str
    anchor: str
    """What the other side is; empty where the figure stands for itself."""
    unit: str
    """Of the figures; a ratio has none."""
    bar: float
    """What the ratio, or the figure where there is no other side, is meant to reach."""
    at_least: bool = False
    """Whether the bar is a lower bound."""
    ours: list = field(default_factory=list)
    other: list = field(default_factory=list)

    def ratios(self):
        return [a / b for a, b in zip(self.ours, self.other)]

    def value(self):
        """The median ratio, or the median of our figures."""
        return statistics.median(self.ratios() if self.anchor else self.ours)

    def spread(self):
        values = self.ratios() if self.anchor else self.ours
        return min(values), max(values)

    def met(self):
        return self.value() >= self.bar if self.at_least else self.value() <= self.bar

    def as_json(self):
        low, high = self.spread()
        return {
            "group": self.group,
            "name": self.name,
            "anchor": self.anchor or None,
            "unit": self.unit,
            "value": self.value(),
            "lowest": low,
            "highest": high,
            "bar": self.bar,
            "bound": "at least" if self.at_least else "at most",
            "met": self.met(),
            "ours": self.ours,
            "other": self.other,
        }


def in_turn(rounds, *sides):
    """Runs each side once to warm up, then all of them in turn; a list of samples for each."""
    for side in sides:
        side()
    samples = [[] for _ in sides]
    for number in range(rounds):
        # The side that begins changes, so that neither always finds the machine as the other left it.
        order = range(len(sides)) if number % 2 == 0 else reversed(range(len(sides)))
        for index in order:
            samples[index].append(sides[index]())
    return samples


def figures(samples, what):
    return [getattr(sample, what) for sample in samples]
