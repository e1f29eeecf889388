"""Reads many pictures with Dask, without HTTP. cli.py is the command line. shards.py lists the pictures and
divides them into shards, pictures.py reads the pictures of a shard, rows.py makes a row for each of them, and
parquet.py writes a shard's rows to a file. tasks.py is the task for one shard, isolated.py reads a shard in a
process with limits, and run.py sends the shards to the workers and monitors them."""
