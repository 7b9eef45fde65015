-- [START dagster_migration]
CREATE SCHEMA IF NOT EXISTS example_site;
CREATE TABLE example_site.visits (day date NOT NULL, page text NOT NULL, visitors int NOT NULL);
-- [END dagster_migration]
