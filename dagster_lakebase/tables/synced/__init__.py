"""Tables that are copied between Delta and Lakebase, as assets."""
