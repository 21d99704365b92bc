"""Task sources: clients, their records, and the disjoint blocks that tasks are drawn from."""

from secure_fedmeta.tasks.drawing import draw, round_key
from secure_fedmeta.tasks.protocol import (
    ClientData,
    Draw,
    Record,
    SourceClass,
    SourceInfo,
    SourceOptions,
    TaskBlock,
    TaskSource,
)
from secure_fedmeta.tasks.registry import (
    SOURCES,
    build_source,
    check_options,
    needs_data,
    schema_of,
)
from secure_fedmeta.tasks.schema import Columns, Schema
from secure_fedmeta.tasks.site import Site

__all__ = [
    "SOURCES",
    "ClientData",
    "Columns",
    "Draw",
    "Record",
    "Schema",
    "Site",
    "SourceClass",
    "SourceInfo",
    "SourceOptions",
    "TaskBlock",
    "TaskSource",
    "build_source",
    "check_options",
    "draw",
    "needs_data",
    "round_key",
    "schema_of",
]
