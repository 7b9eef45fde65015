"""What Airflow's hooks, operators, sensors and triggers share; not for DAG files."""
