"""The documentation's SQLAlchemy pattern: the token goes in when a connection is opened."""

import os

from sqlalchemy import URL, create_engine, event, text
from token_of import database_token

engine = create_engine(
    URL.create(
        "postgresql+psycopg",
        username=os.environ["PGUSER"],
        host=os.environ["PGHOST"],
        port=int(os.environ["PGPORT"]),
        database=os.environ["PGDATABASE"],
    ),
    connect_args={"sslmode": "require"},
)


@event.listens_for(engine, "do_connect")
def inject_token(dialect, record, arguments, parameters):
    parameters["password"] = database_token()


with engine.connect() as connection:
    print(connection.execute(text("SELECT current_user")).scalar())
