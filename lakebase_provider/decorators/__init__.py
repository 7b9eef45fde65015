"""TaskFlow decorators, as ``@task.<name>``."""
