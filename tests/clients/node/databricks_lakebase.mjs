// Databricks' own driver: it mints by itself.
import { createLakebasePool } from "@databricks/lakebase";

const pool = createLakebasePool();
console.log((await pool.query("SELECT current_user")).rows[0].current_user);
await pool.end();
