"""Damaged COPY data is read as a second decoder reads it, or refused; see :mod:`.decoder_fuzz`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from . import decoder_fuzz

#: Seconds that the long run takes.
SECONDS = float(os.environ.get("LAKEBASE_FUZZ_SECONDS", "600"))
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("which", decoder_fuzz.PROPERTIES, ids=lambda which: which.__name__)
def test_a_few_examples(which: decoder_fuzz.Property) -> None:
    decoder_fuzz.run(which, 100)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("which", decoder_fuzz.PROPERTIES, ids=lambda which: which.__name__)
def test_ten_thousand_examples(which: decoder_fuzz.Property) -> None:
    decoder_fuzz.run(which, 10_000)


@pytest.mark.slow
@pytest.mark.timeout(SECONDS + 300)
def test_for_long() -> None:
    # A process of its own: where memory is read that is not there, it ends, and tells the seed and where.
    command = [sys.executable, "-m", "tests.security.decoder_fuzz", str(SECONDS)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS + 240)
    assert done.returncode == 0, f"exit status {done.returncode}\n{done.stderr[-20_000:]}"
    assert done.stdout.strip().endswith("examples")
