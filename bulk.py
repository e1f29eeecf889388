"""Reads the digits in millions of pictures: no service, no HTTP, on this machine's processors or on Dask's workers
elsewhere. A folder of Parquet files comes out, a row a picture. It can be stopped, and the same command goes on.

    python bulk.py scans/ --out digits/                                # a folder and all below it
    python bulk.py 's3://bucket/scans/*.jpg' --out s3://bucket/digits/  # what fsspec reaches
    python bulk.py scans.tar rows.parquet images.npy --out digits/ --read
    python bulk.py scans/ --out digits/ --scheduler tcp://scheduler:8786

docs/bulk.md shows more.
"""

from digits.bulk.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
