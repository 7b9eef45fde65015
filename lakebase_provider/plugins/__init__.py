"""What Airflow's API server shows: a page of each Lakebase connection."""
