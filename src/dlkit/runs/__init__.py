"""A run: where it stands, what it has measured, and its files."""
