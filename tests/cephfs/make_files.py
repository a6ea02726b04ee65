"""One of several clients that fill a directory with empty files. Run with the Python that has Ceph's own bindings."""

import os
import sys

FILES = 100_000
MAKERS = 4
PER_DIRECTORY = 1000


def main(conf, path, number):
    import cephfs

    client = cephfs.LibCephFS(conffile=conf, auth_id="proxy")
    client.mount()
    for directory in range(number, FILES // PER_DIRECTORY, MAKERS):
        folder = f"{path}/{directory}"
        client.mkdir(folder, 0o755)
        for file in range(PER_DIRECTORY):
            client.close(client.open(f"{folder}/{file}", os.O_CREAT | os.O_WRONLY, 0o644))
    client.shutdown()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
