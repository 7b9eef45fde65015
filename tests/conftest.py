"""What all tests share: they are a deployment whose Lakebase is on this machine."""

from __future__ import annotations

import os

from lakebase_provider.core.allowed_hosts import ALLOW_LOOPBACK

os.environ[ALLOW_LOOPBACK] = "1"
