"""``python -m steno``: the same as ``steno``."""

import sys

from steno.cli import main

sys.exit(main())
