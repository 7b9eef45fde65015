"""Commands about what copies rows between Delta tables and Lakebase."""
