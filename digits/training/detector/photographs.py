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
from dataclasses import dataclass
from pathlib import Path

from digits.training.stage import ROOT, StageError, outputs, read_params, run

PHOTOGRAPHS = ROOT / "data" / "photographs"
TIMEOUT = 300  # seconds
LOCAL = "Or set DIGITS_PHOTOGRAPHS to a folder of .png and .jpg files without digits."


@dataclass(frozen=True)
class Params:
    """`photographs` in params.yaml: the package and its version, the wheel's SHA-256, and the files to take."""

    package: str
    version: str
    sha256: str
    names: list[str]


def fetch(params: Params, folder: Path) -> None:
    """Write the photographs params.names to the folder. Raises StageError if pip fails or one is
    missing."""
    with tempfile.TemporaryDirectory() as temporary:
        wanted = Path(temporary) / "requirements.txt"
        wanted.write_text(f"{params.package}=={params.version} --hash=sha256:{params.sha256}\n")
        # the same wheel on every machine: it is only unpacked
        command = [
            *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"),
            *("--only-binary=:all:", "--platform", "manylinux_2_28_x86_64", "--python-version", "3.11"),
            *("--require-hashes", "--requirement", str(wanted), "--dest", temporary),
        ]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False)
        except subprocess.TimeoutExpired:
            raise StageError(f"pip did not fetch the photographs within {TIMEOUT} s. {LOCAL}") from None
        wheels = list(Path(temporary).glob("*.whl"))
        if done.returncode or not wheels:
            reason = (done.stderr.strip() or "it gave no reason").splitlines()[-1]
            raise StageError(f"pip could not fetch the photographs: {reason} {LOCAL}")
        with zipfile.ZipFile(wheels[0]) as wheel:
            inside = {Path(name).name: name for name in wheel.namelist() if "/data/" in name}
            for name in params.names:
                if name not in inside:
                    raise StageError(f"{wheels[0].name} has no photograph {name}.")
                (folder / name).write_bytes(wheel.read(inside[name]))


def main() -> None:
    """Write data/photographs."""
    params = read_params("photographs", Params)
    local = os.environ.get("DIGITS_PHOTOGRAPHS")
    with outputs(PHOTOGRAPHS.parent, PHOTOGRAPHS.name) as new:
        folder = new / PHOTOGRAPHS.name
        folder.mkdir()
        if local:
            for path in sorted(Path(local).iterdir()):
                if path.suffix.lower() in (".png", ".jpg"):
                    shutil.copyfile(path, folder / path.name)
        else:
            fetch(params, folder)
    print(f"{len(list(PHOTOGRAPHS.iterdir()))} photographs in {PHOTOGRAPHS}")


if __name__ == "__main__":
    run(main)
