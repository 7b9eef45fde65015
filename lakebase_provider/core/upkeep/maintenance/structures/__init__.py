"""Indexes and partitions as they are declared: made, repaired and retired beside others' work."""
