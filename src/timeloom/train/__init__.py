"""One loop; one small file per thing that is trained."""
