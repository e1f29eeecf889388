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
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

from digits.training.stage import ROOT, StageError, outputs, read_params, run

FONTS = ROOT / "data" / "fonts"
KINDS = ("handwriting", "printed")
SUFFIXES = (".woff2", ".ttf", ".otf")
TIMEOUT = 300  # seconds for all packages
LOCAL = "Or set DIGITS_FONTS to a folder with the subfolders handwriting and printed."


@dataclass(frozen=True)
class Params:
    """`fonts` in params.yaml. version: of all packages. handwriting, printed: the names of families."""

    version: str
    handwriting: list[str]
    printed: list[str]


def font_files(folder: Path, kind: str) -> list[Path]:
    """The font files of a kind ("handwriting" or "printed") in the order of their names.

    Raises StageError if there are none.
    """
    files = sorted(path for path in (folder / kind).glob("*") if path.suffix in SUFFIXES)
    if not files:
        raise StageError(
            f"{folder / kind} has no fonts. Run `dvc repro fonts` or `python -m digits.training.detector.fonts`."
        )
    return files


def fetch(params: Params, folder: Path) -> None:
    """Write the families of the params to the folder. Raises StageError if npm fails or a package isn't as
    expected."""
    families = [("handwriting", name) for name in params.handwriting]
    families += [("printed", name) for name in params.printed]
    with tempfile.TemporaryDirectory() as temporary:
        packages = [f"@fontsource/{family}@{params.version}" for _, family in families]
        command = ["npm", "pack", "--silent", "--ignore-scripts", "--pack-destination", temporary, *packages]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False)
        except FileNotFoundError:
            raise StageError(f"The fonts are npm packages, and npm is not installed. {LOCAL}") from None
        except subprocess.TimeoutExpired:
            raise StageError(f"npm did not fetch the fonts within {TIMEOUT} s. {LOCAL}") from None
        if done.returncode:
            reason = (done.stderr.strip() or done.stdout.strip() or "it gave no reason").splitlines()[0]
            raise StageError(f"npm could not fetch the fonts: {reason}. {LOCAL}")
        licences = []
        for kind, family in families:
            package = Path(temporary) / f"fontsource-{family}-{params.version}.tgz"
            font, licence = unpack(package, family)
            if "SIL Open Font License" not in licence and "SIL OPEN FONT LICENSE" not in licence:
                raise StageError(f"The font {family} is not under the SIL Open Font License.")
            (folder / kind).mkdir(parents=True, exist_ok=True)
            (folder / kind / f"{family}.woff2").write_bytes(font)
            licences.append(f"{family} {params.version}\n\n{licence.strip()}\n")
        (folder / "LICENSES").write_text("\n\n".join(licences))


def unpack(package: Path, family: str) -> tuple[bytes, str]:
    """The regular font for Latin letters in a package of Fontsource, and its licence.

    Raises StageError if the package is missing, damaged or without them.
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
        raise StageError(f"{package.name} is not a package of Fontsource as expected: {error}") from None
    return parts[0], parts[1].decode()


def copy(source: Path, folder: Path) -> None:
    """Copy the fonts of a local folder. Raises StageError if it has none of a kind."""
    for kind in KINDS:
        if not (source / kind).is_dir():
            raise StageError(f"DIGITS_FONTS is {source}, which has no folder {kind}.")
        (folder / kind).mkdir(parents=True, exist_ok=True)
        for path in font_files(source, kind):
            shutil.copyfile(path, folder / kind / path.name)


def main() -> None:
    """Write data/fonts."""
    params = read_params("fonts", Params)
    local = os.environ.get("DIGITS_FONTS")
    with outputs(FONTS.parent, FONTS.name) as new:
        folder = new / FONTS.name
        folder.mkdir()
        if local:
            copy(Path(local), folder)
        else:
            fetch(params, folder)
    for kind in KINDS:
        print(f"{kind}: {len(font_files(FONTS, kind))} families in {FONTS / kind}")


if __name__ == "__main__":
    run(main)
