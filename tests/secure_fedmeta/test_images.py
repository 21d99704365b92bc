"""Images of one's own: pixels, hostile files, links, and the episodes that classes are cut into."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import struct
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from secure_fedmeta.errors import ConfigError, DataError
from secure_fedmeta.pipeline import assemble
from secure_fedmeta.tasks import Site, TaskSource, build_source, check_options, round_key
from secure_fedmeta.tasks.image_files import pixels
from secure_fedmeta.training import run
from tests.contracts.sources import CLIENTS, images
from tests.secure_fedmeta.federation import default_ledger, tiny
from tests.secure_fedmeta.own_tables import contents, site

Folder = tuple[Path, dict[str, Any]]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """A folder of images, which no test changes, and its options."""
    folder = tmp_path_factory.mktemp("images")
    return folder, images(folder)


@pytest.fixture
def own(made: Folder, tmp_path: Path) -> Folder:
    """A copy that a test may change."""
    shutil.copytree(made[0] / "images", tmp_path / "images")
    return tmp_path, made[1]


def source(made: Folder, secret: bytes = bytes(32), **more: Any) -> TaskSource:
    return build_source("images", {**made[1], **more}, site(made[0], secret))


def encoded(image: Image.Image, form: str = "PNG", **more: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **more)
    return file.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    body = kind + data
    return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))


def bomb(side: int) -> bytes:
    """A PNG of a few bytes that says it has side times side pixels."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0))
    rows = chunk(b"IDAT", zlib.compress(bytes(1000)))
    return b"\x89PNG\r\n\x1a\n" + head + rows + chunk(b"IEND", b"")


def broken_between() -> bytes:
    """A PNG whose second part of pixels has no name that a chunk may have."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 100, 100, 8, 0, 0, 0, 0))
    rows = zlib.compress(bytes(100 * 101), 0)
    parts = chunk(b"IDAT", rows[:300]) + chunk(b"ID\0T", rows[300:])
    return b"\x89PNG\r\n\x1a\n" + head + parts + chunk(b"IEND", b"")


# --- pixels -------------------------------------------------------------------------------------


def test_levels_become_numbers_between_minus_one_and_one() -> None:
    image = Image.fromarray(np.array([[0, 255], [51, 204]], np.uint8))
    found = pixels(encoded(image), "a.png", side=2, colour="grey")
    assert found.dtype == np.float32
    assert found.tolist() == pytest.approx([-1, 1, -0.6, 0.6])
    binary = image.convert("1", dither=Image.Dither.NONE)
    assert pixels(encoded(binary), "a.png", side=2, colour="grey").tolist() == [-1, 1, -1, 1]


def test_colours_are_channel_after_channel() -> None:
    levels = np.zeros((2, 2, 3), np.uint8)
    levels[0, 1] = (255, 0, 51)
    found = pixels(encoded(Image.fromarray(levels)), "a.png", side=2, colour="rgb")
    assert found.tolist() == pytest.approx([-1, 1, -1, -1, -1, -1, -1, -1, -1, -0.6, -1, -1])
    grey = pixels(encoded(Image.new("L", (2, 2), 255), "JPEG"), "a.jpg", side=2, colour="rgb")
    assert grey.tolist() == [1.0] * 12


def test_other_sizes_are_made_to_fit() -> None:
    left = np.zeros((40, 20), np.uint8)
    left[:, 10:] = 255
    found = pixels(encoded(Image.fromarray(left)), "a.png", side=4, colour="grey").reshape(4, 4)
    assert (found[:, 0] < -0.9).all()
    assert (found[:, 3] > 0.9).all()


FRAMES = [Image.new("L", (4, 4), shade) for shade in (0, 255)]
NOISE = Image.effect_noise((64, 64), 9)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        pytest.param(bomb(8_000), "8000 x 8000 pixels", id="bomb"),
        pytest.param(bomb(10_000), "can be read", id="larger bomb"),
        pytest.param(bomb(30_000), "can be read", id="largest bomb"),
        pytest.param(bomb(100), "can be read", id="too few rows"),
        pytest.param(broken_between(), "can be read", id="broken between"),
        pytest.param(encoded(NOISE)[:-999], "can be read", id="cut"),
        pytest.param(encoded(NOISE, "JPEG")[:-999], "can be read", id="cut jpeg"),
        pytest.param(encoded(Image.new("RGBA", (4, 4))), "mode RGBA", id="alpha"),
        pytest.param(encoded(Image.new("LA", (4, 4))), "mode LA", id="grey alpha"),
        pytest.param(encoded(Image.new("P", (4, 4))), "mode P", id="palette"),
        pytest.param(encoded(Image.new("I;16", (4, 4))), "mode I;16", id="16 bits"),
        pytest.param(encoded(Image.new("CMYK", (4, 4)), "JPEG"), "mode CMYK", id="cmyk"),
        pytest.param(
            encoded(Image.new("L", (4, 4)), transparency=7), "without transparency", id="key"
        ),
        pytest.param(
            encoded(FRAMES[0], save_all=True, append_images=FRAMES[1:]), "frames", id="animated"
        ),
        pytest.param(encoded(Image.new("L", (4, 4)), "GIF"), "can be read", id="gif"),
        pytest.param(b"", "can be read", id="empty"),
    ],
)
def test_hostile_images_are_refused_by_name(data: bytes, expected: str) -> None:
    with pytest.raises(DataError, match=r"^north/a/1\.png: .*" + expected):
        pixels(data, "north/a/1.png", side=4, colour="grey")


GOOD = {form: encoded(NOISE, form) for form in ("PNG", "JPEG")}


@settings(max_examples=100)
@given(
    form=st.sampled_from(["PNG", "JPEG"]),
    changes=st.lists(st.tuples(st.integers(0, 300), st.integers(1, 255)), max_size=4),
    length=st.integers(1, 3000),
)
def test_damage_anywhere_gives_pixels_or_the_readers_own_error(
    form: str, changes: list[tuple[int, int]], length: int
) -> None:
    data = bytearray(GOOD[form])
    for place, value in changes:
        data[place] ^= value
    with contextlib.suppress(DataError):
        found = pixels(bytes(data[:length]), "a.png", side=4, colour="grey")
        assert np.abs(found).max() <= 1


# --- the folder ---------------------------------------------------------------------------------


def link_file(folder: Path) -> None:
    (folder / "north/class 0/0.png").unlink()
    (folder / "north/class 0/0.png").symlink_to(folder / "north/class 0/1.png")


def link_class(folder: Path) -> None:
    (folder / "north/class x").symlink_to(folder / "north/class 0")


def link_client(folder: Path) -> None:
    (folder / "north").rename(folder.parent / "outside")
    (folder / "north").symlink_to(folder.parent / "outside")


def link_unread(folder: Path) -> None:
    """To an image of a class that is too small to be in any task."""
    (folder / "north/class small").mkdir()
    (folder / "north/class small/0.png").symlink_to(folder / "north/class 0/0.png")


def pipe(folder: Path) -> None:
    (folder / "north/class 0/0.png").unlink()
    os.mkfifo(folder / "north/class 0/0.png")


def no_file(folder: Path) -> None:
    (folder / "north/class 0/0.png").unlink()
    (folder / "north/class 0/0.png").mkdir()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (link_file, r"^north/class 0/0\.png: .*without links"),
        (link_unread, r"^north/class small/0\.png: .*without links"),
        (link_class, r"^north/class x: .*without links"),
        (link_client, r"^north: .*without links"),
        (pipe, r"^north/class 0/0\.png: is no regular file"),
        (no_file, r"^north/class 0/0\.png: .*(regular file|directory)"),
        (lambda f: (f / "north/class 0/a.txt").touch(), r"^north/class 0/a\.txt: .*\.png, \.jpg"),
        (lambda f: (f / "north/a.png").touch(), r"^north/a\.png: cannot be read"),
        (lambda f: (f / "north/class 0/0.png").write_bytes(b"x"), r"^north/class 0/0\.png: not a"),
        (lambda f: shutil.copytree(f / "west", f / "east"), "east: no declared client; .* north,"),
        (lambda f: shutil.rmtree(f / "west"), "'west' has no record"),
        (shutil.rmtree, "images: cannot be read: No such file"),
    ],
)
def test_the_folder_is_never_left_and_holds_what_it_should(
    own: Folder, change: Callable[[Path], object], expected: str
) -> None:
    whole: dict[str, Any] = {"classes_per_block": 12, "ways": 12}  # every file is read
    (own[0] / "images/north/class 0/.DS_Store").touch()
    assert source(own, **whole).info.rows == 12 * 9 * len(CLIENTS)
    change(own[0] / "images")
    with pytest.raises(DataError, match=expected):
        source(own, **whole)


def test_more_files_than_fit_are_refused(made: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("secure_fedmeta.tasks.images.MAX_VALUES", 1000)
    with pytest.raises(DataError, match=r"make data\.options\.side smaller"):
        source(made)
    monkeypatch.setattr("secure_fedmeta.tasks.image_files.MAX_FILES", 50)
    with pytest.raises(DataError, match="holds more than 50 files"):
        source(made)


# --- episodes -----------------------------------------------------------------------------------


def test_a_task_has_its_classes_whole_and_a_draw_is_even(made: Folder) -> None:
    found = source(made)
    assert found.info.tasks > len(CLIENTS)
    classes: dict[str, set[tuple[str, float]]] = {}
    for record in found.records():
        classes.setdefault(str(record.user), set()).add((record.id.split("/")[1], record.y))
    for name in CLIENTS:
        for block in found.client(name).blocks:
            assert len(classes[block.id]) == 2  # each class has one label, each label one class
            assert Counter(block.y.tolist()) == {0.0: 9, 1.0: 9}
            drawn = found.draw(block, 4, 2, key=round_key(bytes(32), 1))
            assert Counter(drawn[1].tolist()) == {0.0: 2, 1.0: 2}
            assert Counter(drawn[3].tolist()) == {0.0: 1, 1.0: 1}
    left = found.info.excluded["images of more classes than a task has"]
    assert found.info.rows + left == 9 * 12 * len(CLIENTS)


def test_a_block_that_lacks_images_of_a_class_is_no_task(own: Folder) -> None:
    """Eighteen images of two classes would do by number, of which one class has too few."""
    before = source(own)
    block = before.client("north").blocks[0]
    ids = [record.id for record in before.records() if record.user == block.id]
    kept = {one.rpartition("/")[0] for one in ids}.pop()
    for one in ids:
        if one.startswith(f"{kept}/") and not one.endswith(("/0.png", "/1.png")):
            (own[0] / "images" / one.replace("%20", " ")).unlink()
    after = contents(source(own))
    first = contents(before)
    assert {name for name in first | after if first.get(name) != after.get(name)} == {block.id}
    assert all(len(held[1]) == 4 * 18 for held in after.values())


def test_a_class_more_or_less_changes_its_own_task_only(own: Folder) -> None:
    first = contents(source(own))
    shutil.copytree(own[0] / "images/north/class 3", own[0] / "images/north/class 99")
    second = contents(source(own))
    assert sum(first.get(name) != second.get(name) for name in first | second) <= 1
    taken = next(record.id for record in source(own).records() if record.client == "south")
    shutil.rmtree(own[0] / "images" / taken.rpartition("/")[0].replace("%20", " "))
    third = contents(source(own))
    assert sum(second.get(name) != third.get(name) for name in second | third) == 1


def test_blocks_and_labels_follow_a_secret(made: Folder) -> None:
    assert contents(source(made)) == contents(source(made))
    assert contents(source(made)) != contents(source(made, secret=bytes([1] * 32)))

    def nobody_asks() -> bytes:
        raise AssertionError

    build_source("images", {**made[1], "public": True}, Site(made[0], nobody_asks))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"ways": 5}, "ways 5 exceed classes_per_block 4"),
        ({"colour": "cmyk"}, r"colour = 'cmyk'"),
        ({"classes": {}}, "classes"),
        ({"classes": {"no rth": 3}}, "classes"),
        ({"side": 1000}, r"side = 1000"),
    ],
)
def test_options_that_cannot_be_are_refused(changes: dict[str, Any], expected: str) -> None:
    whole = {"path": "images", "classes": {"north": 12}, "classes_per_block": 4, "ways": 2}
    with pytest.raises(ConfigError, match=expected):
        check_options("images", whole | changes)


def test_a_run_on_colour_images_with_the_conv_net(made: Folder, tmp_path: Path) -> None:
    changes: dict[str, object] = {
        "data": {"source": "images", "options": {**made[1], "colour": "rgb"}},
        "model": {"name": "conv", "hidden": [4]},
        "ledger.population": "people",
        "training.rounds": 1,
    }
    where = Site(made[0], lambda: bytes(32))
    with pytest.raises(ConfigError, match=r"privacy\.unit = 'record'.* made of classes"):
        assemble(tiny(changes | {"privacy.unit": "record"}), site=where)
    default_ledger().grant("people", unit="task", epsilon=3, delta=1e-5, approver="board")
    result = run(tiny(changes), out=tmp_path / "runs", site=where)
    assert result.status == "completed"
    assert result.report["data"]["public"] is False
