"""The variables of a program that connects by itself: libpq's, and those of tools that take a URL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlencode

from lakebase_provider.core.config import LakebaseConfig, arguments
from lakebase_provider.core.connect.network import tls_parameters
from lakebase_provider.core.connect.target import Target
from lakebase_provider.core.errors import ConfigError
from lakebase_provider.core.tokens.token import Token

_OURS = ("DATABASE_URL", "FLYWAY_URL", "FLYWAY_USER", "FLYWAY_PASSWORD")


def tls_of_programs(config: LakebaseConfig) -> dict[str, str]:
    """libpq's parameters of TLS, as a program of others understands them."""
    tls = tls_parameters(config)
    if config.sslmode == "require" and not config.sslrootcert:
        # A file that is not there, which keeps libpq from one of the user's, is an error to others.
        del tls["sslrootcert"]
    return tls


def program_environment(
    inherited: Mapping[str, str], target: Target, tls: Mapping[str, str], password: Mapping[str, str]
) -> dict[str, str]:
    """The variables of a program that connects with libpq, its ports to Go and Java, or by a URL.

    No variable of libpq is inherited: one could send the token elsewhere, or win over the pass file.

    Args:
        inherited: This process's variables.
        target: Where to connect, and as whom.
        tls: libpq's parameters of TLS.
        password: The variables with the password, or with the file that holds it; no other has it.
    """
    place = f"{target.host}:{target.port}/{quote(target.database, safe='')}?{urlencode(tls, quote_via=quote)}"
    return {
        **{
            name: value
            for name, value in inherited.items()
            if not name.startswith("PG") and name not in _OURS
        },
        "PGHOST": target.host,
        "PGPORT": str(target.port),
        "PGDATABASE": target.database,
        "PGUSER": target.user,
        **{f"PG{name.upper()}": value for name, value in tls.items()},
        "DATABASE_URL": f"postgresql://{quote(target.user, safe='')}@{place}",
        "FLYWAY_URL": f"jdbc:postgresql://{place}",
        "FLYWAY_USER": target.user,
        **password,
    }


def check_words(words: Any, token: Token) -> None:
    """Refuse what is no command, and one with the password among its arguments.

    Args:
        words: The program and its arguments.
        token: The password.

    Raises:
        ConfigError: They are not a list of words, or one of them holds the password or a NUL character.
    """
    remedy = 'Give a list of words, such as ["alembic", "upgrade", "head"].'
    if isinstance(words, (str, bytes)) or not isinstance(words, Sequence) or not words:
        raise arguments.wrong("The command", words, "be a list of words", remedy)
    for word in words:
        if not isinstance(word, str):
            raise arguments.wrong("A word of the command", word, "be text", remedy)
        if "\0" in word or token.reveal() in word:
            raise ConfigError(
                "A word of the command holds a password or a NUL character.",
                remedy="Leave the password out: the program finds it by its environment. Others can read a "
                "process's arguments.",
            )
