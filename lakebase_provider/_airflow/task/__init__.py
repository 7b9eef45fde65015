"""How the package deals with the task that it runs in."""
