"""The figures of the forwarder and of placement, one table each; `make bench`."""

import sys

from bench import forwarder, placement, rows

if __name__ == "__main__":
    sys.exit(rows.main(__doc__, [forwarder.BENCH, placement.BENCH]))
