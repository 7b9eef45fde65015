// node-postgres, with a token that was minted for it.
import fs from "node:fs";
import pg from "pg";

const client = new pg.Client({
  password: process.env.DATABASE_TOKEN,
  ssl: { ca: fs.readFileSync(process.env.PGSSLROOTCERT, "utf8") },
});
await client.connect();
console.log((await client.query("SELECT current_user")).rows[0].current_user);
await client.end();
