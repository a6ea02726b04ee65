"""`python3 -m arrays.simulators.ontap`: one cluster with one volume whose mount is `--root`."""

from .. import program
from .api import Cluster


def main():
    options = program.parser(__doc__)
    options.add_argument("--user", default="admin")
    options.add_argument("--password", default="netapp1!")
    options.add_argument("--volume", default="vol1")
    options.add_argument("--svm", default="svm1")
    options.add_argument("--junction", help="NAS path of the volume; /VOLUME when absent, empty for none")
    options.add_argument("--size", type=int, default=1 << 40, help="size of the volume in bytes")
    options.add_argument("--owner", type=int, help="numeric user and group of those qtrees; root when absent")
    options.add_argument("--qtree", action="append", default=[], help="a qtree that exists from the start")
    arguments = options.parse_args()
    cluster = Cluster(arguments.user, arguments.password)
    cluster.add_volume(arguments.volume, arguments.root, arguments.svm, arguments.size, arguments.junction)
    for name in arguments.qtree:
        cluster.put_qtree(name, owner=arguments.owner)
    program.run(cluster, arguments)


main()
