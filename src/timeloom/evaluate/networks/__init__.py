"""Networks that metrics look through, each behind the same small contract: clips in, one row of features an item out.

Their weights are files that people have; nothing here downloads, and nothing in a file is run.
"""
