// postgres.js, with a token that was minted for it.
import fs from "node:fs";
import postgres from "postgres";

const sql = postgres({
  password: process.env.DATABASE_TOKEN,
  ssl: { ca: fs.readFileSync(process.env.PGSSLROOTCERT, "utf8") },
});
console.log((await sql`SELECT current_user`)[0].current_user);
await sql.end();
