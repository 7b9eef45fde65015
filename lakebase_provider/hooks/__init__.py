"""Hooks: an Airflow connection becomes a :class:`~lakebase_provider.core.LakebaseClient`."""
