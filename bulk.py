"""Reads the digits in millions of pictures without the service, in processes on this machine or on Dask's workers
elsewhere. The output is a folder of Parquet files with one row per picture. To resume a run that was stopped, run
the same command again.

    python bulk.py scans/ --out digits/                                 # a folder with everything below it
    python bulk.py 's3://bucket/scans/*.jpg' --out s3://bucket/digits/  # any file system that fsspec supports
    python bulk.py scans.tar rows.parquet images.npy --out digits/ --read
    python bulk.py scans/ --out digits/ --scheduler tcp://scheduler:8786

docs/bulk.md shows more.
"""

from digits.bulk.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
