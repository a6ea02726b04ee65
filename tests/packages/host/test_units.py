"""The units against the bars: how much `systemd-analyze security` says that they leave open."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PACKAGING = ROOT / "packaging"
BARS = [
    ("storage-agent.service", None, 1.3),
    ("storage-agent.service", "no-xfs.conf", 1.2),
    # A supplementary group more than the unit itself, which is how the site's uid, and no other process of it, gets to the
    # configuration and the helper.
    ("storage-agent.service", "site.conf", 1.4),
    ("quota-helper.service", None, 1.4),
    ("quota-helper.service", "own-user.conf", 1.0),
]


@pytest.mark.parametrize("unit, drop_in, bar", BARS)
def test_a_unit_stays_below_its_bar(unit, drop_in, bar, tmp_path):
    shutil.copy(PACKAGING / unit, tmp_path)
    if drop_in:
        (tmp_path / f"{unit}.d").mkdir()
        shutil.copy(PACKAGING / "examples" / drop_in, tmp_path / f"{unit}.d")
    done = subprocess.run(["systemd-analyze", "security", "--offline=true", "--no-pager", f"--threshold={bar * 10:.0f}",
                           tmp_path / unit], capture_output=True, text=True)
    exposure = float(re.search(r"Overall exposure level for \S+: ([0-9.]+)", done.stdout)[1])
    print(f"{unit} {drop_in or ''}: {exposure} of at most {bar}")
    assert exposure <= bar and done.returncode == 0, done.stdout
