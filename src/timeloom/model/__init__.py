"""Models from elsewhere: converted into Timeloom's folder format, and measured before anything is run."""
