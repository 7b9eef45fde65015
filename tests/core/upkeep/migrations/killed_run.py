"""Runs the migrations of a folder, its only argument, in a process that is to be killed."""

from __future__ import annotations

import sys

from lakebase_provider.core import LakebaseClient, LakebaseConfig

if __name__ == "__main__":
    with LakebaseClient(LakebaseConfig.from_env()) as client:
        client.migrations.run(sys.argv[1], lock_timeout=60)
