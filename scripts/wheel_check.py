"""Build the wheel, look inside, install it in a fresh environment and use it outside the clone.

Fails unless the wheel holds exactly the four packages with data, templates and py.typed, and
unless `fedmeta init credit && fedmeta run && fedmeta verify runs/latest` works from it, and renders
the same report again.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = {"secure_fedmeta", "privacy", "crypto", "audit"}
DATA = ROOT / "secure_fedmeta" / "data"
NEEDED = {
    *(f"secure_fedmeta/data/{path.name}" for path in DATA.glob("*.gz")),
    *(f"{package}/py.typed" for package in PACKAGES),
    "secure_fedmeta/data/PROVENANCE.md",
    "secure_fedmeta/data/shakespeare.csv.gz",
    "secure_fedmeta/data/vowels.csv.gz",
    "secure_fedmeta/reporting/templates/report.css",
    "secure_fedmeta/reporting/templates/report.html.j2",
    "secure_fedmeta/reporting/templates/report.md.j2",
    "privacy/ledger_migrations/versions/0002_limits.py",
    "secure_fedmeta/templates/credit.toml",
    "secure_fedmeta/templates/shakespeare.toml",
    "secure_fedmeta/templates/sinusoid.toml",
    "secure_fedmeta/templates/synthetic.toml",
    "secure_fedmeta/templates/vowels.toml",
    "secure_fedmeta/templates/vowels_permuted.toml",
}


def main() -> None:
    """Run the check; exits 1 with the reason where it fails."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        wheel = build(folder)
        look_inside(wheel)
        use(wheel, folder)
    print("wheel check: fine")


def build(folder: Path) -> Path:
    """The path of a freshly built wheel."""
    options = ["-q", "--no-deps", "--no-build-isolation", "-w", str(folder)]
    call([sys.executable, "-m", "pip", "wheel", *options, str(ROOT)], cwd=folder)
    (wheel,) = folder.glob("*.whl")
    return wheel


def look_inside(wheel: Path) -> None:
    """Refuse a wheel with more or less than it should hold."""
    names = set(zipfile.ZipFile(wheel).namelist())
    tops = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    if tops != PACKAGES:
        sys.exit(f"the wheel's top level is {sorted(tops)}, not {sorted(PACKAGES)}")
    if missing := NEEDED - names:
        sys.exit(f"the wheel lacks {sorted(missing)}")


def use(wheel: Path, folder: Path) -> None:
    """Install the wheel with the locked versions and run the credit example from it."""
    venv.create(folder / "env", with_pip=True)
    python = str(folder / "env" / "bin" / "python")
    fedmeta = str(folder / "env" / "bin" / "fedmeta")
    lock = ["-c", str(ROOT / "requirements.lock")]
    call([python, "-m", "pip", "install", "-q", *lock, str(wheel)], cwd=folder)
    outside = folder / "outside"
    outside.mkdir()
    call([fedmeta, "init", "credit"], cwd=outside)
    call([fedmeta, "run"], cwd=outside)
    call([fedmeta, "verify", "runs/latest"], cwd=outside)
    call([fedmeta, "report", "runs/latest", "--html", "again.html"], cwd=outside)
    if (outside / "again.html").read_bytes() != (outside / "runs/latest/report.html").read_bytes():
        sys.exit("the report rendered again is not the one that the run left")
    call([fedmeta, "ledger", "show"], cwd=outside)


def call(command: list[str], *, cwd: Path) -> None:
    """Run a command without this checkout on its path; exits where it fails."""
    inherited = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    inherited["FEDMETA_STATE_DIR"] = str(cwd / "state")
    print("+", " ".join(Path(command[0]).name if i == 0 else c for i, c in enumerate(command)))
    if subprocess.run(command, cwd=cwd, env=inherited, check=False).returncode:
        sys.exit("wheel check failed at the command above")


if __name__ == "__main__":
    main()
