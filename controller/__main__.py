"""`python -m controller` is picasso-controller."""

import sys

from controller.cli import main

if __name__ == "__main__":
    sys.exit(main())
