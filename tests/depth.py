"""How many examples a property is tried with: a few in `make test`, many in `make test-slow`.

A test of a property says so with ``pytest.mark.deep``, by which `make test-slow` finds it.
"""

from __future__ import annotations

from hypothesis import settings

#: The profile of hypothesis in which properties are tried with many examples.
FULL = "full"
settings.register_profile(FULL)


def examples(few: int, many: int) -> int:
    """The number of examples that this run tries."""
    return many if settings.get_current_profile_name() == FULL else few
