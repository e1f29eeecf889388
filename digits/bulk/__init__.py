"""Reads many pictures with Dask, without HTTP. bulk.py calls cli.py. inputs.py lists the pictures and divides
them into shards, items.py reads the pictures of a shard, rows.py makes a row for each of them, and parts.py
writes a shard's rows to a file. tasks.py calls these in a worker, and run.py sends the shards to the workers
and monitors them."""
