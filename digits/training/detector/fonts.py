"""Fetches the fonts whose letters and digits appear on the pages. `python -m digits.training.detector.fonts`,
the pipeline's `fonts` stage, gets the families that params.yaml names as npm packages of Fontsource, each of
one exact version, and writes one font file a family: data/fonts/handwriting/*.woff2 and
data/fonts/printed/*.woff2. npm checks the packages' hashes. All families are under the SIL Open Font License;
their licences are in data/fonts/LICENSES.

Where there is no npm, or for other fonts, DIGITS_FONTS names a local folder with the subfolders handwriting and
printed, each with one .woff2, .ttf or .otf file a family.
"""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[3]
FONTS = ROOT / "data" / "fonts"
KINDS = ("handwriting", "printed")
SUFFIXES = (".woff2", ".ttf", ".otf")
TIMEOUT = 300  # seconds for all packages

LOCAL = "Or set DIGITS_FONTS to a folder with the subfolders handwriting and printed."


class FontError(Exception):
    """The fonts can't be fetched or read. The message says what to do."""


def font_files(folder: Path, kind: str) -> list[Path]:
    """The font files of a kind ("handwriting" or "printed") in the order of their names.

    Raises FontError if there are none.
    """
    files = sorted(path for path in (folder / kind).glob("*") if path.suffix in SUFFIXES)
    if not files:
        raise FontError(
            f"{folder / kind} has no fonts. Run `dvc repro fonts` or `python -m digits.training.detector.fonts`."
        )
    return files


def fetch(params: dict[str, Any], folder: Path) -> None:
    """Write the families of the params `handwriting` and `printed`, lists of names, to the folder.

    params["version"] is the version of all packages. Raises FontError if npm fails or a package isn't as
    expected.
    """
    families = [(kind, family) for kind in KINDS for family in params[kind]]
    with tempfile.TemporaryDirectory() as temporary:
        packages = [f"@fontsource/{family}@{params['version']}" for _, family in families]
        command = ["npm", "pack", "--silent", "--ignore-scripts", "--pack-destination", temporary, *packages]
        try:
            run = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False)
        except FileNotFoundError:
            raise FontError(f"The fonts are npm packages, and npm is not installed. {LOCAL}") from None
        except subprocess.TimeoutExpired:
            raise FontError(f"npm did not fetch the fonts within {TIMEOUT} s. {LOCAL}") from None
        if run.returncode:
            reason = (run.stderr.strip() or run.stdout.strip() or "it gave no reason").splitlines()[0]
            raise FontError(f"npm could not fetch the fonts: {reason}. {LOCAL}")
        licences = []
        for kind, family in families:
            package = Path(temporary) / f"fontsource-{family}-{params['version']}.tgz"
            font, licence = unpack(package, family)
            if "SIL Open Font License" not in licence and "SIL OPEN FONT LICENSE" not in licence:
                raise FontError(f"The font {family} is not under the SIL Open Font License.")
            (folder / kind).mkdir(parents=True, exist_ok=True)
            (folder / kind / f"{family}.woff2").write_bytes(font)
            licences.append(f"{family} {params['version']}\n\n{licence.strip()}\n")
        (folder / "LICENSES").write_text("\n\n".join(licences))


def unpack(package: Path, family: str) -> tuple[bytes, str]:
    """The regular font for Latin letters in a package of Fontsource, and its licence.

    Raises FontError if the package is missing, damaged or without them.
    """
    try:
        with tarfile.open(fileobj=io.BytesIO(package.read_bytes())) as archive:
            parts = []
            for name in (f"package/files/{family}-latin-400-normal.woff2", "package/LICENSE"):
                file = archive.extractfile(name)
                if file is None:
                    raise KeyError(name)
                parts.append(file.read())
    except (OSError, tarfile.TarError, KeyError) as error:
        raise FontError(f"{package.name} is not a package of Fontsource as expected: {error}") from None
    return parts[0], parts[1].decode()


def copy(source: Path, folder: Path) -> None:
    """Copy the fonts of a local folder. Raises FontError if it has none of a kind."""
    for kind in KINDS:
        if not (source / kind).is_dir():
            raise FontError(f"DIGITS_FONTS is {source}, which has no folder {kind}.")
        (folder / kind).mkdir(parents=True, exist_ok=True)
        for path in font_files(source, kind):
            shutil.copyfile(path, folder / kind / path.name)


def main() -> None:
    """Write data/fonts."""
    params = yaml.safe_load((ROOT / "params.yaml").read_text())["fonts"]
    local = os.environ.get("DIGITS_FONTS")
    try:
        shutil.rmtree(FONTS, ignore_errors=True)
        FONTS.mkdir(parents=True)
        if local:
            copy(Path(local), FONTS)
        else:
            fetch(params, FONTS)
    except FontError as error:
        sys.exit(str(error))
    except OSError as error:
        sys.exit(f"{error.filename or FONTS} can't be written: {error.strerror}")
    for kind in KINDS:
        print(f"{kind}: {len(font_files(FONTS, kind))} families in {FONTS / kind}")


if __name__ == "__main__":
    main()
