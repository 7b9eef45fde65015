import os
import ssl

import pg8000.native
from token_of import database_token

connection = pg8000.native.Connection(
    os.environ["PGUSER"],
    host=os.environ["PGHOST"],
    port=int(os.environ["PGPORT"]),
    database=os.environ["PGDATABASE"],
    password=database_token(),
    ssl_context=ssl.create_default_context(cafile=os.environ["PGSSLROOTCERT"]),
)
print(connection.run("SELECT current_user")[0][0])
connection.close()
