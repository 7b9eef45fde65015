"""From an Airflow connection, its form and the deployment's configuration to settings."""
