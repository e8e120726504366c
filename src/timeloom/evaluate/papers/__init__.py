"""`timeloom evaluate papers`: what the papers compare, on *digits*, over all models that are at hand."""
