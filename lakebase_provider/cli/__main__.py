"""``python -m lakebase_provider.cli``."""

import sys

from lakebase_provider.cli import main

sys.exit(main())
