"""What the packages' tests share: the list of installed files, and how it is compared."""

from pathlib import Path

LIST = Path(__file__).parent / "files.txt"


def listed(kind, package):
    """What a package installs, as `mode owner:group path`. `kind` is deb or rpm."""
    wanted = set()
    for line in LIST.read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        which, owner_package, rest = line.split(maxsplit=2)
        if owner_package == package and which in (kind, "both"):
            wanted.add(rest)
    assert wanted, f"{LIST} has nothing of {package} for {kind}"
    return wanted
