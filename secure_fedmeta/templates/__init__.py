"""The example configurations that `fedmeta init` writes."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from secure_fedmeta.errors import ConfigError, unknown_name

_SUFFIX = ".toml"


def template_names() -> tuple[str, ...]:
    """Names of the examples that ship."""
    files = resources.files(__name__).iterdir()
    return tuple(sorted(f.name.removesuffix(_SUFFIX) for f in files if f.name.endswith(_SUFFIX)))


def write_template(name: str, folder: Path) -> Path:
    """Write the example `name` into `folder`.

    Raises:
        ConfigError: there is no such example, or the file exists already.
    """
    if name not in template_names():
        raise unknown_name("example", name, template_names(), key="NAME")
    path = folder / f"{name}{_SUFFIX}"
    text = (resources.files(__name__) / path.name).read_text(encoding="utf-8")
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        raise ConfigError(f"{path} exists; move it away or choose another folder") from error
    return path
