"""Numbers only: no files, no network."""
