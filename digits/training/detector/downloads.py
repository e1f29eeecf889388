"""The pipeline's `downloads` stage: `python -m digits.training.detector.downloads` fetches what the pages are made
from besides MNIST, as params.yaml names it: fonts, one file a family, to data/fonts/handwriting and
data/fonts/printed, and photographs without digits to data/photographs.

The fonts are npm packages of Fontsource, whose hashes npm checks. All families are under the SIL Open Font
License; their licences are in data/fonts/LICENSES. The photographs are in scikit-image's wheel, which pip
downloads and checks against the hash in params.yaml; nothing is installed.

Local folders replace the downloads: DIGITS_FONTS with the subfolders handwriting and printed, each with one
.woff2, .ttf or .otf file a family, and DIGITS_PHOTOGRAPHS with .png and .jpg files.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from digits.training.stage import ROOT, StageError, outputs, read_params, run

KINDS = ("handwriting", "printed")
SUFFIXES = (".woff2", ".ttf", ".otf")
# seconds for all packages
TIMEOUT = 300


@dataclass(frozen=True)
class Fonts:
    """`fonts` in params.yaml. version: of all packages. handwriting, printed: the names of families."""

    version: str
    handwriting: list[str]
    printed: list[str]


@dataclass(frozen=True)
class Photographs:
    """`photographs` in params.yaml: the package and its version, the wheel's SHA-256, and the files to take."""

    package: str
    version: str
    sha256: str
    names: list[str]


def font_files(folder: Path, kind: str) -> list[Path]:
    """The font files of a kind ("handwriting" or "printed") in the order of their names.

    Raises StageError if there are none.
    """
    files = sorted(path for path in (folder / kind).glob("*") if path.suffix in SUFFIXES)
    if not files:
        raise StageError(f"{folder / kind} has no fonts. Run `dvc repro downloads`.")
    return files


def fetch_fonts(params: Fonts, folder: Path) -> None:
    """Write the families of the params to the folder, or copy those of DIGITS_FONTS.

    Raises StageError if npm fails, or if a package or the folder isn't as expected.
    """
    for kind in KINDS:
        (folder / kind).mkdir(parents=True, exist_ok=True)
    if local := os.environ.get("DIGITS_FONTS"):
        for kind in KINDS:
            for path in font_files(Path(local), kind):
                shutil.copyfile(path, folder / kind / path.name)
        return
    with tempfile.TemporaryDirectory() as temporary:
        packages = [
            f"@fontsource/{family}@{params.version}" for family in params.handwriting + params.printed
        ]
        command = ["npm", "pack", "--silent", "--ignore-scripts", "--pack-destination", temporary, *packages]
        _download(command, "npm", "DIGITS_FONTS")
        licences = []
        for kind, families in zip(KINDS, (params.handwriting, params.printed), strict=True):
            for family in families:
                package = Path(temporary) / f"fontsource-{family}-{params.version}.tgz"
                font, licence = unpack(package, family)
                (folder / kind / f"{family}.woff2").write_bytes(font)
                licences.append(f"{family} {params.version}\n\n{licence.strip()}\n")
        (folder / "LICENSES").write_text("\n\n".join(licences))


def unpack(package: Path, family: str) -> tuple[bytes, str]:
    """The regular font for Latin letters in a package of Fontsource, and its licence.

    Raises StageError if the package is missing, damaged or without them, or if the licence is another one.
    """
    try:
        with tarfile.open(package) as archive:
            names = f"package/files/{family}-latin-400-normal.woff2", "package/LICENSE"
            font, licence = (archive.extractfile(name).read() for name in names)  # type: ignore[union-attr]
    except (OSError, tarfile.TarError, KeyError, AttributeError) as error:
        raise StageError(f"{package.name} is not a package of Fontsource as expected: {error}") from None
    if b"sil open font license" not in licence.lower():
        raise StageError(f"The font {family} is not under the SIL Open Font License.")
    return font, licence.decode()


def fetch_photographs(params: Photographs, folder: Path) -> None:
    """Write the photographs that params names to the folder, or copy those of DIGITS_PHOTOGRAPHS.

    Raises StageError if pip fails or one is missing.
    """
    if local := os.environ.get("DIGITS_PHOTOGRAPHS"):
        for path in sorted(Path(local).iterdir()):
            if path.suffix.lower() in (".png", ".jpg"):
                shutil.copyfile(path, folder / path.name)
        return
    with tempfile.TemporaryDirectory() as temporary:
        wanted = Path(temporary) / "requirements.txt"
        wanted.write_text(f"{params.package}=={params.version} --hash=sha256:{params.sha256}\n")
        # the same wheel on every machine: it is only unpacked
        command = [
            *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"),
            *("--only-binary=:all:", "--platform", "manylinux_2_28_x86_64", "--python-version", "3.11"),
            *("--require-hashes", "--requirement", str(wanted), "--dest", temporary),
        ]
        _download(command, "pip", "DIGITS_PHOTOGRAPHS")
        (path,) = Path(temporary).glob("*.whl")
        with zipfile.ZipFile(path) as wheel:
            inside = {Path(name).name: name for name in wheel.namelist() if "/data/" in name}
            for name in params.names:
                if name not in inside:
                    raise StageError(f"{path.name} has no photograph {name}.")
                (folder / name).write_bytes(wheel.read(inside[name]))


def _download(command: list[str], name: str, setting: str) -> None:
    try:
        # it says itself what went wrong
        subprocess.run(command, check=True, timeout=TIMEOUT)
    except (OSError, subprocess.SubprocessError):
        raise StageError(
            f"{name} is not installed, failed, or took more than {TIMEOUT} s. Or set {setting} to a local folder."
        ) from None


def main() -> None:
    """Write data/fonts and data/photographs."""
    fonts, photographs = read_params("fonts", Fonts), read_params("photographs", Photographs)
    with outputs(ROOT / "data", "fonts", "photographs") as new:
        fetch_fonts(fonts, new / "fonts")
        (new / "photographs").mkdir()
        fetch_photographs(photographs, new / "photographs")
    print(f"The fonts and photographs are in {ROOT / 'data'}.")


if __name__ == "__main__":
    run(main)
