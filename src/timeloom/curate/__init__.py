"""Raw videos become a training set: scanned once, cut exactly, captioned, filtered, written as clips."""
