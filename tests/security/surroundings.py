"""The environment that libpq reads; of its own, for what has no Airflow sets it, too."""

from __future__ import annotations

from pathlib import Path

import pytest

from lakebase_provider.core.config import settings

#: What libpq reads, with a value that would keep it from connecting or change the session.
VARIABLES = {
    "PGSSLCERT": "{folder}/postgresql.crt",
    "PGSSLKEY": "{folder}/postgresql.key",
    "PGSSLCERTMODE": "require",
    "PGSSLCRL": "{folder}/root.crl",
    "PGSSLCRLDIR": "{folder}",
    "PGSSLNEGOTIATION": "direct",
    "PGSSLMINPROTOCOLVERSION": "TLSv9",
    "PGSSLMAXPROTOCOLVERSION": "TLSv1",
    "PGMINPROTOCOLVERSION": "3.2",
    "PGMAXPROTOCOLVERSION": "2.0",
    "PGGSSENCMODE": "require",
    "PGCHANNELBINDING": "require",
    "PGREQUIREAUTH": "none",
    "PGREQUIREPEER": "nobody-there",
    "PGTARGETSESSIONATTRS": "standby",
    "PGLOADBALANCEHOSTS": "nonsense",
    "PGHOSTADDR": "127.0.0.9",
    "PGOPTIONS": "-c no_such_setting=1",
    "PGSSLMODE": "disable",
    "PGSSLROOTCERT": "{folder}/root.crt",
    "PGCLIENTENCODING": "LATIN1",
    "PGPASSFILE": "{folder}",
    "PGSSLSNI": "0",
    "PGSSLCOMPRESSION": "1",
    "PGREQUIRESSL": "0",
    "PGAPPNAME": "somebody",
    "PGCONNECT_TIMEOUT": "nonsense",
    "PGDATABASE": "no_such_database",
    "PGHOST": "nowhere.invalid",
    "PGPORT": "1",
    "PGUSER": "nobody",
    "PGPASSWORD": "nonsense",
    "PGKRBSRVNAME": "nobody",
    "PGGSSLIB": "nonsense",
    "PGGSSDELEGATION": "1",
    "PGSYSCONFDIR": "{folder}",
    "PGSERVICEFILE": "{folder}/no_services.conf",
}


def set_all(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Set every variable but those that a configuration may be read from."""
    ours = {variable for setting in settings() for variable in setting.env}
    for name in VARIABLES.keys() - ours:
        value = VARIABLES[name]
        monkeypatch.setenv(name, value.format(folder=folder))
