"""Frames become four times larger ones; and how frames get as bad as those that a network learns from."""
