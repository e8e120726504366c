"""The web page: generate, compare, browse."""
