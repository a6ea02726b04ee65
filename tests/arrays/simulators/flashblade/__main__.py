"""`python3 -m arrays.simulators.flashblade`: one array with one file system whose mount is `--root`."""

from .. import program
from .api import FlashBlade


def main():
    options = program.parser(__doc__)
    options.add_argument("--api-token", default="T-0b9f7f2e-0000-4000-8000-simulated00")
    options.add_argument("--fs", default="FB-NFS1", help="name of the file system")
    options.add_argument("--provisioned", type=int, default=1 << 40, help="its size in bytes, 0 for no limit")
    arguments = options.parse_args()
    array = FlashBlade(arguments.api_token, arguments.fs, arguments.root, arguments.provisioned or None)
    program.run(array, arguments)


main()
