"""`python -m gateway` is the command picasso-gateway."""

import sys

from gateway.cli import main

sys.exit(main())
