"""One training loop, and one small file per thing that is trained."""
