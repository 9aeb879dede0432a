"""A run measured, drawn, reported and compared."""
