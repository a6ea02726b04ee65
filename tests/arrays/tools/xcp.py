"""Imitates NetApp XCP: license, copy, delete, scan; NFS paths stand for directories by `exports` of tools.json."""

import json
import os
import shutil
import stat
import sys
import time

HERE = os.path.dirname(os.path.abspath(sys.argv[0]))
with open(os.path.join(HERE, "tools.json")) as file:
    SETTINGS = json.load(file)
NFS_TYPES = {
    stat.S_IFREG: 1,
    stat.S_IFDIR: 2,
    stat.S_IFBLK: 3,
    stat.S_IFCHR: 4,
    stat.S_IFLNK: 5,
    stat.S_IFSOCK: 6,
    stat.S_IFIFO: 7,
}
FLAGS = {"-noid", "-force", "-removetopdir", "-csv", "-preserve-atime", "-du", "-stats"}
WITH_VALUE = {"-fmt", "-depth", "-parallel", "-match", "-exclude", "-loglevel", "-newid"}
BANNER = "XCP 1.9.3; (c) 2023 NetApp, Inc.; Licensed to Jane Doe [Example Inc] until Mon Dec 31 00:00:00 2029"


def fail(message):
    print(f"xcp: ERROR: {message}", file=sys.stderr)
    print("STATUS : FAILED")
    sys.exit(1)


def local(path):
    """The directory that an NFS path stands for."""
    for export in sorted(SETTINGS["exports"], key=len, reverse=True):
        if path == export or path.startswith(export.rstrip("/") + "/"):
            return os.path.join(SETTINGS["exports"][export], path[len(export) :].strip("/")).rstrip("/")
    return fail(f"mnt3 MOUNT {path}: no such export")


def walk(path, depth=None):
    """All entries with the start directory first: (name relative to it, lstat)."""
    yield "", os.lstat(path)
    pending = [("", 1)]
    while pending:
        relative, level = pending.pop()
        if depth is not None and level > depth:
            continue
        with os.scandir(os.path.join(path, relative)) as entries:
            for entry in sorted(entries, key=lambda each: each.name):
                inner = f"{relative}/{entry.name}".lstrip("/")
                status = entry.stat(follow_symlinks=False)
                yield inner, status
                if stat.S_ISDIR(status.st_mode):
                    pending.append((inner, level + 1))


def trailer(subcommand, arguments, counts):
    print(f"Xcp command : xcp {subcommand} {' '.join(arguments)}")
    print(f"Stats : {counts}")
    print("Speed : 11.5 KiB in (6.11 KiB/s), 1.88 KiB out (1.00 KiB/s)")
    print("Total Time : 1s.")
    print("Job ID : Job_2023-11-23_23.23.33.930501_" + subcommand)
    print("STATUS : PASSED")


def license_of(_options, _paths):
    print(BANNER)
    print()
    print("License type: SANDBOX")
    print(f"License status: {SETTINGS['licence']}")
    print("Customer name: N/A")
    print("License management URL: https://xcp.netapp.com")


def scan(options, paths):
    start = paths[0]
    entries = list(walk(local(start), int(options["-depth"]) if "-depth" in options else None))
    if "-csv" in options:
        csv(start, entries)
    elif "-fmt" in options:
        end = "" if SETTINGS.get("glued") else "\n"
        code = compile(options["-fmt"], "-fmt", "eval")
        for relative, status in entries:
            names = variables(start, relative, status)
            sys.stdout.buffer.write(str(eval(code, names)).encode(errors="surrogateescape") + end.encode())
        sys.stdout.buffer.flush()
    else:
        for relative, _ in entries:
            print(f"{start}/{relative}".rstrip("/"))
    if SETTINGS.get("glued"):
        print()
    trailer("scan", sys.argv[2:], f"{len(entries)} scanned")


def variables(start, relative, status):
    full = f"{start}/{relative}".rstrip("/")
    return {
        "x": full,
        "name": full.rpartition("/")[2],
        "relpath": relative,
        "path": full,
        "type": NFS_TYPES[stat.S_IFMT(status.st_mode)],
        "mode": stat.S_IMODE(status.st_mode),
        "uid": status.st_uid,
        "gid": status.st_gid,
        "nlinks": status.st_nlink,
        "size": status.st_size,
        "used": status.st_blocks * 512,
        "mtime": status.st_mtime,
        "atime": status.st_atime,
        "ctime": status.st_ctime,
        "fileid": status.st_ino,
        "depth": relative.count("/") + 1 if relative else 0,
    }


def csv(start, entries):
    kinds = {"files": stat.S_ISREG, "links": stat.S_ISLNK, "directories": stat.S_ISDIR}
    of_kind = {name: [s for _, s in entries if test(s.st_mode)] for name, test in kinds.items()}

    def totals(statuses):
        return sum(s.st_size for s in statuses), sum(s.st_blocks * 512 for s in statuses)

    sizes = {name: totals(statuses) for name, statuses in of_kind.items()}
    special = len(entries) - sum(len(statuses) for statuses in of_kind.values())
    print(f"scan {start}")
    print("options,\"{'-csv': True}\"")
    print(f'summary,"{len(entries)} scanned, 4.42 KiB in (5.50 KiB/s), 472 out (587/s), 0s."')
    print()
    print("Maximum Values,Size,Used,Depth,Namelen,Dirsize")
    print(",1024,4096,2,10,5")
    print()
    print(f"Total count,{len(entries)}")
    print(f"Directories,{len(of_kind['directories'])}")
    print(f"Regular files,{len(of_kind['files'])}")
    print(f"Symbolic links,{len(of_kind['links'])}")
    print(f"Special files,{special}")
    print("Hard links,0,\nmultilink files,0,\nSpace Saved by Hard links (KB),0\nSparse data,N/A\nDedupe estimate,N/A")
    print("Total space for regular files,size,{},used,{}".format(*sizes["files"]))
    print("Total space for symlinks,size,{},used,{}".format(*sizes["links"]))
    print("Total space for directories,size,{},used,{}".format(*sizes["directories"]))
    print(f"Total space used,{sum(used for _, used in sizes.values())}")
    print()


def copy(_options, paths):
    source, target = map(local, paths)
    print("xcp: WARNING: No index name has been specified, creating one with name: autoname_copy_2023-01-01")
    entries = list(walk(source))
    os.makedirs(target, exist_ok=True)
    for relative, status in entries[1:]:
        origin, destination = os.path.join(source, relative), os.path.join(target, relative)
        if stat.S_ISDIR(status.st_mode):
            os.mkdir(destination)
        elif stat.S_ISLNK(status.st_mode):
            os.symlink(os.readlink(origin), destination)
        else:
            shutil.copy2(origin, destination)
    # Directories last and innermost first, so that filling them does not change their times.
    for relative, status in reversed(entries):
        if stat.S_ISDIR(status.st_mode):
            os.chmod(os.path.join(target, relative), stat.S_IMODE(status.st_mode))
            os.utime(os.path.join(target, relative), ns=(status.st_atime_ns, status.st_mtime_ns))
    trailer("copy", sys.argv[2:], f"{len(entries)} scanned, 0 matched, {len(entries) - 1} copied, 0 error")


def delete(options, paths):
    if "-force" not in options:
        fail("cannot ask for confirmation without a terminal")
    path = local(paths[0])
    count = len(list(walk(path)))
    for entry in os.scandir(path):
        shutil.rmtree(entry.path) if entry.is_dir(follow_symlinks=False) else os.unlink(entry.path)
    if "-removetopdir" in options:
        os.rmdir(path)
    trailer("delete", sys.argv[2:], f"{count} scanned, {count - 1} removes, 1 rmdir")


COMMANDS = {"license": (license_of, 0), "scan": (scan, 1), "copy": (copy, 2), "delete": (delete, 1)}


def parse(arguments):
    options, paths = {}, []
    rest = iter(arguments)
    for argument in rest:
        if argument in FLAGS:
            options[argument] = True
        elif argument in WITH_VALUE:
            options[argument] = next(rest, None)
        elif argument.startswith("-"):
            fail(f"unknown option {argument}")
        else:
            paths.append(argument)
    return options, paths


def main():
    with open(SETTINGS["log"], "a") as log:
        log.write(json.dumps(["xcp", *sys.argv[1:]]) + "\n")
    subcommand = sys.argv[1] if len(sys.argv) > 1 else ""
    if subcommand in ("-version", "--version"):
        print(BANNER)
        return
    if subcommand not in COMMANDS:
        fail(f"unknown command {subcommand}")
    if subcommand in SETTINGS.get("hang", ()):
        time.sleep(3600)
    if subcommand in SETTINGS.get("fail", ()):
        fail("nfs3 error 5: I/O error")
    if subcommand != "license" and SETTINGS["licence"] != "ACTIVE":
        fail("This license has expired")
    work, count = COMMANDS[subcommand]
    options, paths = parse(sys.argv[2:])
    if len(paths) != count:
        fail(f"{subcommand} needs {count} paths")
    try:
        work(options, paths)
    except OSError as error:
        fail(f"nfs3 error {error.errno}: {error.strerror} '{error.filename}'")


main()
