"""Moving data: load, merge and unload at the speed of COPY."""
