"""Reads the digits in millions of pictures without the service, with processes on this machine or with Dask's
workers elsewhere. The output is a folder of Parquet files with one row per picture. A run that was stopped is
resumed by the same command.

    python bulk.py scans/ --out digits/                                # a folder and all below it
    python bulk.py 's3://bucket/scans/*.jpg' --out s3://bucket/digits/  # what fsspec reaches
    python bulk.py scans.tar rows.parquet images.npy --out digits/ --read
    python bulk.py scans/ --out digits/ --scheduler tcp://scheduler:8786

docs/bulk.md shows more.
"""

from digits.bulk.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
