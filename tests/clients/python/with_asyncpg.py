import asyncio
import os
import ssl

import asyncpg
from token_of import database_token


async def main() -> None:
    connection = await asyncpg.connect(
        password=database_token(), ssl=ssl.create_default_context(cafile=os.environ["PGSSLROOTCERT"])
    )
    print(await connection.fetchval("SELECT current_user"))
    await connection.close()


asyncio.run(main())
