"""Imitates the RapidFile Toolkit, version 1 or 2: pls, pdu, pcp, pcopy, prm, told apart by the name it is called by."""

import json
import os
import shutil
import stat
import sys
import time

HERE = os.path.dirname(os.path.abspath(sys.argv[0]))
with open(os.path.join(HERE, "tools.json")) as file:
    SETTINGS = json.load(file)
NAME = os.path.basename(sys.argv[0])
VERSION = SETTINGS["rapidfile"]
BANNERS = {1: f"{NAME} (RapidFile Toolkit) 1.0", 2: f"version {NAME} (RapidFile) 2.1.1"}


def fail(message):
    print(f"{NAME}: {message}", file=sys.stderr)
    sys.exit(1)


def split(arguments):
    """Single-letter and long options as a set, and the paths."""
    options, paths = set(), []
    for argument in arguments:
        if argument.startswith("--"):
            options.add(argument)
        elif argument.startswith("-") and argument != "-":
            options.update(argument[1:])
        else:
            paths.append(argument)
    return options, paths


def walk(path):
    """All entries below the path, directories after what they hold: (path, lstat)."""
    status = os.lstat(path)
    if stat.S_ISDIR(status.st_mode):
        with os.scandir(path) as entries:
            for entry in sorted(entries, key=lambda each: each.name):
                yield from walk(os.path.join(path, entry.name))
    yield path, status


def pls(options, paths):
    wanted = "--json" if VERSION == 1 else "--jsonlines"
    if wanted not in options:
        fail(f"this version prints machine-readable lines with {wanted}")
    if SETTINGS.get("noise"):
        print("pls: warning: attribute cache is off")
    for path, status in walk(paths[0]):
        mode, kind = stat.S_IMODE(status.st_mode), stat.S_IFMT(status.st_mode)
        record = {
            "path": path,
            # Version 1 writes octal digits as if they were decimal.
            "filetype": int(f"{kind:o}") if VERSION == 1 else kind,
            "mode": int(f"{mode:o}") if VERSION == 1 else mode,
            "uid": status.st_uid,
            "gid": status.st_gid,
            "size": status.st_size,
            "mtime": int(status.st_mtime),
            "ctime": int(status.st_ctime),
        }
        print(json.dumps(record))


def pdu(options, paths):
    sums = {}
    for path, status in walk(paths[0]):
        size = status.st_size + sums.pop(path, 0)
        parent = os.path.dirname(path)
        sums[parent] = sums.get(parent, 0) + size
        if "h" in options:
            total = size
        elif {"0", "b", "a"} <= options:
            sys.stdout.buffer.write(f"{size}\t{path}\0".encode(errors="surrogateescape"))
        else:
            fail("only -0 -b -a and -hs are imitated")
    if "h" in options:
        print(f"{total / (1 << 20):.1f}M {paths[0]}")


def copy(options, paths):
    source, target = paths
    if os.path.isdir(source) and "r" not in options:
        fail(f"omitting directory '{source}'")
    onto = "T" in options and VERSION == 2
    if "T" in options and VERSION == 1:
        fail("invalid option -- 'T'")
    if os.path.isdir(target) and not onto:
        target = os.path.join(target, os.path.basename(os.path.abspath(source)))
    if os.path.isdir(source):
        shutil.copytree(source, target, symlinks=True, dirs_exist_ok=True)
    else:
        shutil.copy2(source, target, follow_symlinks=False)


def prm(options, paths):
    for path in paths:
        if os.path.isdir(path) and not os.path.islink(path):
            if "r" not in options:
                fail(f"cannot remove '{path}': Is a directory")
            shutil.rmtree(path)
        else:
            os.unlink(path)


def main():
    with open(SETTINGS["log"], "a") as log:
        log.write(json.dumps([NAME, *sys.argv[1:]]) + "\n")
    if NAME in SETTINGS.get("hang", ()):
        time.sleep(3600)
    if "--version" in sys.argv[1:]:
        print(SETTINGS.get("banner", BANNERS[VERSION]))
        return
    if NAME in SETTINGS.get("fail", ()):
        fail("Input/output error")
    options, paths = split(sys.argv[1:])
    work = {"pls": pls, "pdu": pdu, "pcp": copy, "pcopy": copy, "prm": prm}[NAME]
    try:
        work(options, paths)
    except OSError as error:
        fail(f"{error.strerror}: '{error.filename}'")


main()
