"""The directory that stands for the mount: use measured from it, directories made and removed as an array would."""

import os
import shutil
import stat

BLOCK = 4096


def blocks(size):
    """The size rounded up to whole blocks, in bytes."""
    return -(-size // BLOCK) * BLOCK


def usage(path):
    """(bytes in whole blocks, number of inodes) of the directory with all it holds, the directory included."""
    total, count = 0, 0
    pending = [path]
    while pending:
        current = pending.pop()
        total, count = total + BLOCK, count + 1
        try:
            with os.scandir(current) as entries:
                for entry in entries:
                    try:
                        if entry.is_dir(follow_symlinks=False):
                            pending.append(entry.path)
                        else:
                            total += blocks(entry.stat(follow_symlinks=False).st_size)
                            count += 1
                    except FileNotFoundError:
                        continue
        except (FileNotFoundError, NotADirectoryError):
            continue
    return total, count


def make(path, mode, uid, gid):
    """Makes the directory with this owner; an existing one stays as it is."""
    try:
        os.mkdir(path, mode)
    except FileExistsError:
        return
    os.chmod(path, mode)
    if os.geteuid() == 0:
        os.chown(path, uid, gid)


def remove(path):
    """Removes the directory with all it holds, as an array does behind the clients' back."""
    shutil.rmtree(path, ignore_errors=True)


def is_directory(path):
    try:
        return stat.S_ISDIR(os.lstat(path).st_mode)
    except OSError:
        return False
