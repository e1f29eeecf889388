"""The command-line client: sends a JSON file with an image to a running service and prints the digit it found.

    python predicted.py                      # sends sample_request.json to http://localhost:5000
    python predicted.py FILE --url URL

Exit code 0: answered. 1: the service refused or failed. 2: wrong usage, or no service there.
"""

from __future__ import annotations

import argparse
import json
import sys
import urllib.error
import urllib.request
from pathlib import Path

SAMPLE = Path(__file__).resolve().parent / "sample_request.json"


def main() -> int:
    """Send one file, print the answer's JSON; returns the exit code."""
    parser = argparse.ArgumentParser(description="Ask a running service which digit an image shows.")
    parser.add_argument("file", nargs="?", type=Path, default=SAMPLE, help='JSON like {"image": [[...]]}')
    parser.add_argument("--url", default="http://localhost:5000", help="where the service is (%(default)s)")
    parser.add_argument(
        "--timeout", type=float, default=30, help="seconds to wait for an answer (%(default)s)"
    )
    args = parser.parse_args()
    try:
        body = args.file.read_bytes()
    except OSError as error:
        print(f"{args.file} can't be read: {error.strerror}", file=sys.stderr)
        return 2
    if not args.url.startswith(("http://", "https://")):
        parser.error(f"--url {args.url}: http:// or https:// is wanted")
    request = urllib.request.Request(  # noqa: S310
        args.url.rstrip("/") + "/predict", body, {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=args.timeout) as response:  # noqa: S310
            answer = json.load(response)
    except urllib.error.HTTPError as error:
        print(f"The service answered {error.code}: {_detail(error)}", file=sys.stderr)
        return 1
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        print(f"No answer from {args.url} ({reason}). Is the service running? `make serve`", file=sys.stderr)
        return 2
    print(json.dumps(answer))
    return 0


def _detail(error: urllib.error.HTTPError) -> str:
    try:
        return json.load(error)["detail"]
    except (ValueError, KeyError, TypeError, OSError):
        return str(error.reason)


if __name__ == "__main__":
    sys.exit(main())
