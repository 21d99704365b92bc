"""What a person wants to know of their data before a run: read and checked as a run would.

Nothing is trained, charged or logged. Every figure is exact: for data that are not public it is a
statistic of raw data, for the person who holds them and nobody else.
"""

from __future__ import annotations

from typing import Any

from secure_fedmeta.config import Config
from secure_fedmeta.pipeline import Parts, assemble, check_holdings
from secure_fedmeta.tasks import Site

LOCAL_ONLY = (
    "For your eyes only: these figures are exact statistics of data that are not public. No noise "
    "protects them; keep them where the data are."
)


def check_data(config: Config, *, site: Site | None = None) -> dict[str, Any]:
    """Read the data of a config, refuse what a run would refuse, and count.

    Args:
        config: the settings.
        site: where the source is read; see `assemble`.

    Raises:
        ConfigError, DataError: what a run of this config would say before its first round.
    """
    parts = assemble(config, site=site)
    check_holdings(parts)
    info = parts.source.info
    return {
        "name": config.name,
        "source": parts.source.name,
        "public": info.public,
        "notice": None if info.public else LOCAL_ONLY,
        "rows": info.rows,
        "tasks": info.tasks,
        "clients": [_client(parts, name) for name in parts.source.clients()],
        "inputs": list(info.features),
        "outputs": info.output_dim,
        "loss": info.loss,
        "metric": info.metric,
        "unit": config.privacy.unit,
        "units": sorted(info.units),
        "lacking": dict(info.lacking),
        "clipped": dict(info.clipped),
        "missing": dict(info.missing),
        "excluded": dict(info.excluded),
    }


def _client(parts: Parts, name: str) -> dict[str, Any]:
    held = parts.source.client(name)
    part = "trains" if name in parts.training else "unused"
    return {
        "name": name,
        "part": "held out" if name in parts.held_out else part,
        "records": len(held.y),
        "tasks": len(held.blocks),
        "most_tasks": parts.source.info.task_bounds[name],
    }
