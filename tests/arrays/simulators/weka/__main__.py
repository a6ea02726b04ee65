"""`python3 -m arrays.simulators.weka`: one cluster with one file system whose mount is `--root`."""

from .. import program
from .api import Cluster


def main():
    options = program.parser(__doc__)
    options.add_argument("--user", default="admin")
    options.add_argument("--password", default="weka-pass1!")
    options.add_argument("--organization", default="Root")
    options.add_argument("--fs", default="fs1", help="name of the file system")
    options.add_argument("--size", type=int, default=1 << 40, help="its size in bytes")
    options.add_argument("--prefix", default="", help="path inside the file system of the directory that is mounted")
    arguments = options.parse_args()
    cluster = Cluster(
        arguments.user,
        arguments.password,
        arguments.organization,
        arguments.fs,
        arguments.root,
        arguments.size,
        arguments.prefix,
    )
    program.run(cluster, arguments)


main()
