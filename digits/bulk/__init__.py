"""Many pictures at once, without HTTP, on Dask; bulk.py calls cli.py. inputs.py lists the pictures and
divides them into shards, items.py reads a shard, rows.py makes a row of each picture, parts.py keeps a
shard's rows as one file, tasks.py does all of that in a worker, and run.py hands the shards to the workers
and follows them."""
