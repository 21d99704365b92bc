from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import privacy

PACKAGE = Path(privacy.__file__).parent


def imported(file: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    return names


def test_one_file_imports_the_accountants_of_others_and_nothing_imports_torch() -> None:
    uses = {file.name: imported(file) for file in PACKAGE.glob("*.py")}
    for other in ("opacus", "dp_accounting"):
        assert {name for name, used in uses.items() if other in used} == {"gaussian.py"}
    for used in uses.values():
        assert not used & {"torch", "secure_fedmeta", "crypto", "audit"}


def test_charging_rounds_loads_no_torch() -> None:
    code = (
        "import sys, privacy.plan, privacy.ledger, privacy.report\n"
        "sys.exit(bool({'torch', 'opacus', 'dp_accounting'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
