"""What keeps the tasks of one pass apart inside a module that somebody else wrote.

The sensitivity of a round is that of one row of the outer vectors, so that no task may reach
another's. Two ways around `check_module` are closed here, where modules run:

State in plain attributes. A module that keeps a tensor, a list or a counter from one forward pass
for the next carries one task's rows to others. Under `vmap` nothing complains, for an attribute
holds the rows of all tasks, and those of the next pass find them there.

Look-ups beside the table. `vmap` turns the tables of all tasks into one long table, in which the
row behind a task's last one is the next task's first: a number out of range then reads, and learns
for, another task (seen with torch 2.13). Where all share one table it ends the pass for everybody.
Such a number is NaN here, so that the task that holds it counts as zero and nobody notices.
`index_fill` writes beside in the same way, by a negative number too, and is refused.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Callable, Set
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

_OF_TORCH = frozenset(vars(nn.Module())) - {"training"}
"""Parameters, buffers, submodules and hooks, which torch keeps itself."""
_ALL_OF_TORCH = _OF_TORCH | {"_flat_weights", "_flat_weight_refs"}
"""The same of recurrent layers, which list their weights again whenever some are handed in."""


_TABLE_FIRST = (torch.embedding, torch.ops.aten.embedding, torch.ops.aten.embedding.default)
_FILLS = (
    torch.index_fill,
    Tensor.index_fill,
    Tensor.index_fill_,
    torch.ops.aten.index_fill,
    torch.ops.aten.index_fill_,
)


_Call = tuple[Tensor, Tensor, Callable[[Callable[..., Tensor], Tensor, Tensor], Tensor]]


class LookUpsApart(TorchFunctionMode):
    """Within this block a look-up in a table of embeddings gives NaN for numbers out of range.

    Raises:
        RuntimeError: a call of `index_fill`.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Call `func`, which is any of torch's functions, with numbers in range."""
        del types
        named = kwargs or {}
        if func is functional.embedding:
            return _apart(_by_function, func, args, named)
        if func in _TABLE_FIRST:
            return _apart(_by_operation, func, args, named)
        if func in _FILLS or getattr(func, "overloadpacket", None) in _FILLS:
            raise RuntimeError("index_fill reaches from one task to another; take torch.where")
        return func(*args, **named)


def _by_function(input: Tensor, weight: Tensor, *rest: Any, **named: Any) -> _Call:  # noqa: A002
    return weight, input, lambda func, table, inside: func(inside, table, *rest, **named)


def _by_operation(weight: Tensor, indices: Tensor, *rest: Any, **named: Any) -> _Call:
    return weight, indices, lambda func, table, inside: func(table, inside, *rest, **named)


def _apart(
    read: Callable[..., _Call],
    func: Callable[..., Tensor],
    args: tuple[Any, ...],
    named: dict[str, Any],
) -> Tensor:
    """A look-up with NaN in place of what is out of range; `read` knows the order of arguments."""
    table, numbers, call = read(*args, **named)
    known = (numbers >= 0) & (numbers < table.shape[0])
    found = call(func, table, torch.where(known, numbers, 0))
    return found.masked_fill(~known.unsqueeze(-1), math.nan)


class Attributes:
    """What the plain attributes of a module hold, to be found again after every forward pass.

    Tensors, numbers, texts, containers and the attributes of other objects are compared. What a
    module keeps outside of itself is not found.

    Args:
        module: it and its submodules are looked at now.
    """

    def __init__(self, module: nn.Module) -> None:
        self._parts = [
            (name, vars(part), _ALL_OF_TORCH if isinstance(part, nn.RNNBase) else _OF_TORCH)
            for name, part in module.named_modules()
        ]
        self._before = [_plain(held, skipped) for _, held, skipped in self._parts]
        # Most modules hold nothing that can change within: for them the same objects are enough.
        self._whole = [
            (len(held), {key: held[key] for key in before})
            if all(_cannot_change(held[key]) for key in before)
            else None
            for (_, held, _), before in zip(self._parts, self._before, strict=True)
        ]

    def changed(self) -> list[str]:
        """Dotted names of attributes that are no longer what they were, in order."""
        found = []
        parts = zip(self._parts, self._before, self._whole, strict=True)
        for (name, held, skipped), before, whole in parts:
            if whole is not None and _are_these(held, *whole):
                continue
            now = _plain(held, skipped)
            keys = [key for key in before | now if not _same(before.get(key), now.get(key))]
            found += [f"{name}.{key}" if name else key for key in keys]
        return sorted(found)


def _are_these(held: dict[str, Any], count: int, values: dict[str, Any]) -> bool:
    """Whether there are so many attributes, and these are the same objects."""
    missing = object()
    return len(held) == count and all(
        held.get(key, missing) is value for key, value in values.items()
    )


def _cannot_change(value: Any) -> bool:
    if type(value) is tuple:
        return all(_cannot_change(one) for one in value)
    return value is None or type(value) in (bool, int, float, str)


def _plain(held: dict[str, Any], skipped: Set[str]) -> dict[str, Any]:
    return {key: _kept(value, set()) for key, value in held.items() if key not in skipped}


def _kept(value: Any, seen: set[int]) -> Any:
    """A copy as deep as containers and objects go; a tensor with its number of changes in place.

    Each object is looked into once, so that those which hold each other end. Loggers cache levels.
    """
    if isinstance(value, Tensor):
        return (value, value._version)
    if isinstance(value, (set, frozenset)):
        return frozenset(value)
    if id(value) in seen or isinstance(value, (nn.Module, type, logging.Logger)):
        return value
    seen.add(id(value))
    if isinstance(value, (list, tuple, deque)):
        return tuple(_kept(one, seen) for one in value)
    held = value if isinstance(value, dict) else getattr(value, "__dict__", None)
    if not isinstance(held, dict):
        return value
    return (value, tuple((key, _kept(one, seen)) for key, one in held.items()))


def _same(before: Any, now: Any) -> bool:
    if isinstance(before, tuple) and isinstance(now, tuple):
        pairs = zip(before, now, strict=False)
        return len(before) == len(now) and all(_same(*pair) for pair in pairs)
    if before is now:
        return True
    plain = (bool, int, float, str, bytes, frozenset)
    return type(before) is type(now) and isinstance(now, plain) and bool(before == now)
