"""Features, distances, protocols and the report."""
