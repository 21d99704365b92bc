"""Images in a folder laid out client/class/file, read without leaving the folder.

Every name is opened relative to the folder above it, and links are not followed at any level, so
that nothing outside is read even if names change while they are read. Names that begin with a point
are passed over. An image is PNG or JPEG, greyscale or RGB, of one frame; transparency, palettes and
other modes have no one meaning as numbers and are refused. Orientation marks of cameras are not
applied.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Final, Literal

import numpy as np
from PIL import Image, UnidentifiedImageError

from secure_fedmeta.errors import DataError
from secure_fedmeta.tasks.files import read_handle
from secure_fedmeta.tasks.protocol import Floats

MAX_FILE: Final = 2**25
"""Bytes of one file: 32 MiB."""
MAX_PIXELS: Final = 2**25
"""Pixels of one image, before it is made smaller."""
MAX_FILES: Final = 200_000
ENDINGS: Final = (".png", ".jpg", ".jpeg")
MODES: Final[dict[str, str]] = {"grey": "L", "rgb": "RGB"}
_TAKEN: Final = ("1", "L", "RGB")
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_FILE: Final = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW
_DAMAGE: Final = (
    UnidentifiedImageError,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
    OSError,  # truncated
    SyntaxError,  # Pillow's word for a broken PNG
    ValueError,
    EOFError,
)
Colour = Literal["grey", "rgb"]


@dataclass(frozen=True)
class ImageFile:
    """Where an image lies in its folder."""

    client: str
    label: str
    file: str

    def __str__(self) -> str:
        return f"{self.client}/{self.label}/{self.file}"


def list_images(root: Path) -> list[ImageFile]:
    """All images of the folder, sorted by their names.

    Raises:
        DataError: it cannot be read, or holds a link, too many files, or what is no folder, or no
            PNG or JPEG, where there should be one.
    """
    found: list[ImageFile] = []
    with _opened(root) as top:
        for client in _names(top, ""):
            with _inside(top, client, client) as classes:
                for label in _names(classes, client):
                    with _inside(classes, label, f"{client}/{label}") as files:
                        names = _names(files, f"{client}/{label}")
                    found += [_checked(ImageFile(client, label, name)) for name in names]
                    if len(found) > MAX_FILES:
                        raise DataError(f"{root.name}: holds more than {MAX_FILES:,} files")
    return found


def read_images(
    root: Path, images: list[ImageFile], *, side: int, colour: Colour
) -> Iterator[Floats]:
    """The pixels of each image, in turn; see `pixels`.

    Raises:
        DataError: one cannot be read; names it.
    """
    with _opened(root) as top:
        for image in images:
            with (
                _inside(top, image.client, image.client) as classes,
                _inside(classes, image.label, f"{image.client}/{image.label}") as files,
            ):
                try:
                    handle = os.open(image.file, _FILE, dir_fd=files)
                    data = read_handle(handle, str(image), MAX_FILE)
                except OSError as error:
                    raise _unreadable(str(image), error) from error
            yield pixels(data, str(image), side=side, colour=colour)


def pixels(data: bytes, name: str, *, side: int, colour: Colour) -> Floats:
    """An image of `side` by `side` as numbers from -1 (black) to 1.

    Args:
        data: a PNG or JPEG file.
        name: its name, for messages.
        side: height and width that it is made to have; another shape is stretched.
        colour: "grey" gives one channel, "rgb" three.

    Returns:
        `[channels * side * side] float32`, channel by channel, row by row.

    Raises:
        DataError: it is no such file, damaged, too large, of several frames, or of another mode.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of metadata, which are not looked at
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(BytesIO(data), formats=("PNG", "JPEG")) as image:
                _check(image, name)
                made = image.convert(MODES[colour])
    except _DAMAGE as error:
        raise DataError(f"{name}: not a PNG or JPEG that can be read ({error})") from error
    small = made.resize((side, side), Image.Resampling.BILINEAR)
    levels = np.asarray(small, dtype=np.float32).reshape(side, side, -1)
    by_channel = np.ascontiguousarray(levels.transpose(2, 0, 1)).ravel()
    return by_channel / np.float32(127.5) - np.float32(1)


def _check(image: Image.Image, name: str) -> None:
    """Refuse by the header alone; nothing is unpacked before."""
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise DataError(f"{name}: has {width} x {height} pixels, more than {MAX_PIXELS:,}")
    if image.mode not in _TAKEN or "transparency" in image.info:
        raise DataError(
            f"{name}: is of mode {image.mode}; allowed are greyscale and RGB without transparency"
        )
    if getattr(image, "n_frames", 1) != 1:
        raise DataError(f"{name}: has several frames; allowed is one")


def _checked(image: ImageFile) -> ImageFile:
    if not image.file.lower().endswith(ENDINGS):
        raise DataError(f"{image}: allowed are names that end in {', '.join(ENDINGS)}")
    return image


def _names(folder: int, name: str) -> list[str]:
    """What the folder holds, sorted; hidden names are left out.

    Args:
        folder: its descriptor.
        name: its path below the one that a person named; that one's is empty.

    Raises:
        DataError: it holds a link, whether anybody would follow it or not, or an unprintable name.
    """
    names: list[str] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if not entry.name.isprintable() or len(entry.name) > 200:
                where = name or "the folder"
                raise DataError(f"{where}: holds a name that cannot be shown, {entry.name!r}")
            if entry.is_symlink():
                where = f"{name}/{entry.name}" if name else entry.name
                raise DataError(f"{where}: is a link; allowed are client/class/file, without links")
            names.append(entry.name)
    return sorted(names)


@contextmanager
def _opened(root: Path) -> Iterator[int]:
    """The folder that a person named; that one may be a link."""
    try:
        handle = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise DataError(f"{root}: cannot be read: {error.strerror}") from error
    try:
        yield handle
    finally:
        os.close(handle)


@contextmanager
def _inside(folder: int, entry: str, name: str) -> Iterator[int]:
    try:
        handle = os.open(entry, _FOLDER, dir_fd=folder)
    except OSError as error:
        raise _unreadable(name, error) from error
    try:
        yield handle
    finally:
        os.close(handle)


def _unreadable(name: str, error: OSError) -> DataError:
    return DataError(
        f"{name}: cannot be read: {error.strerror}; allowed are client/class/file, without links"
    )
