-- [START dagster_component_sql_file]
CREATE TABLE IF NOT EXISTS example_daily_revenue (day timestamptz PRIMARY KEY, currency text, revenue numeric);
DELETE FROM example_daily_revenue WHERE day >= %(partition_start)s AND day < %(partition_end)s;
INSERT INTO example_daily_revenue VALUES (%(partition_start)s, %(currency)s, 100);
-- [END dagster_component_sql_file]
