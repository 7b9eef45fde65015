"""Sources of rows, read as batches of columns in constant memory."""
