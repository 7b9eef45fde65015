"""``python -m lakebase_provider.cli``."""

import sys

from lakebase_provider.cli import main

if __name__ == "__main__":
    sys.exit(main())
