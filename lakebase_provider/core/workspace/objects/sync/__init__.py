"""What copies rows between Delta tables and Lakebase: synced tables, their pipelines, Lakehouse sync."""
