from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakebase_provider.core.token import Token, TokenPolicy


def token(lifetime: float = 3600.0) -> Token:
    return Token("canary-token", expires_at=1000.0 + lifetime, minted_at=1000.0, minted_elapsed=0.0)


def test_a_token_does_not_show_itself() -> None:
    assert "canary-token" not in repr(token())
    assert token().fingerprint in repr(token())
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(token())


@pytest.mark.parametrize(
    ("left", "state"), [(3600, "fresh"), (721, "fresh"), (719, "stale"), (121, "stale"), (119, "unusable")]
)
def test_states_of_an_hour(left: float, state: str) -> None:
    assert TokenPolicy().state(token(), seconds_left=left, chance=0.5) == state


def test_a_short_token_is_usable_for_three_quarters_of_its_life() -> None:
    policy = TokenPolicy()
    assert policy.state(token(8), seconds_left=2.1, chance=0.5) == "stale"
    assert policy.state(token(8), seconds_left=1.9, chance=0.5) == "unusable"


def test_a_password_without_expiry_is_always_fresh() -> None:
    native = Token("p", expires_at=None, minted_at=0.0, minted_elapsed=0.0)
    left = native.seconds_left(wall=1e12, elapsed=1e12)
    assert TokenPolicy().state(native, seconds_left=left, chance=0.5) == "fresh"


@given(
    lifetime=st.floats(480, 7200),
    passed=st.floats(0, 14_400),
    wall_jump=st.floats(-3600, 3600),
    chance=st.floats(0, 1),
)
def test_no_usable_token_has_less_than_min_left(
    lifetime: float, passed: float, wall_jump: float, chance: float
) -> None:
    """Whatever the wall clock was set to, the elapsed time alone keeps a dying token from being used."""
    policy, held = TokenPolicy(), token(lifetime)
    left = held.seconds_left(wall=1000.0 + passed + wall_jump, elapsed=passed)
    if policy.state(held, seconds_left=left, chance=chance) != "unusable":
        assert lifetime - passed >= policy.min_left - 1e-6
