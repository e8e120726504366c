"""People look, people judge: pairs of videos → votes → preference table."""
