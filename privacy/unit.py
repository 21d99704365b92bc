"""The unit of privacy: what two neighbouring inputs may differ in."""

from __future__ import annotations

from enum import StrEnum


class Unit(StrEnum):
    """Whose presence or contents the guarantee hides."""

    RECORD = "record"
    TASK = "task"
    USER = "user"
    CLIENT = "client"


class Relation(StrEnum):
    """How two neighbouring inputs differ. Bounds under different relations never compose."""

    ADD_REMOVE = "add_remove"
    REPLACE_ONE = "replace_one"
    ZERO_OUT = "zero_out"


RELATION_OF: dict[Unit, Relation] = {
    Unit.RECORD: Relation.REPLACE_ONE,
    Unit.TASK: Relation.ADD_REMOVE,
    Unit.USER: Relation.ADD_REMOVE,
    Unit.CLIENT: Relation.ZERO_OUT,
}

PLAIN_WORDS: dict[Unit, str] = {
    Unit.RECORD: (
        "one record: whoever sees the releases cannot tell, up to epsilon and delta, whether "
        "one record inside one task was replaced by another"
    ),
    Unit.TASK: (
        "one task: whoever sees the releases cannot tell, up to epsilon and delta, whether "
        "one whole task (its support and its query examples) was in the data or not"
    ),
    Unit.USER: (
        "one user: whoever sees the releases cannot tell, up to epsilon and delta, whether "
        "all tasks of one user were in the data or not"
    ),
    Unit.CLIENT: (
        "one client: whoever sees the releases cannot tell, up to epsilon and delta, whether "
        "one client sent its update or zero"
    ),
}
