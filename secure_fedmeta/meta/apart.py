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
"""

from __future__ import annotations

import math
from collections.abc import Callable, Set
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

_OF_TORCH = frozenset(vars(nn.Module()))
"""Parameters, buffers, submodules and hooks, which torch keeps itself."""
_ALL_OF_TORCH = _OF_TORCH | {"_flat_weights", "_flat_weight_refs"}
"""The same of recurrent layers, which list their weights again whenever some are handed in."""


class LookUpsApart(TorchFunctionMode):
    """Within this block a look-up in a table of embeddings gives NaN for numbers out of range."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Call `func`, which is any of torch's functions, with numbers in range."""
        del types
        named = dict(kwargs or {})
        if func is functional.embedding:
            order = ("input", "weight")
        elif func is torch.embedding:
            order = ("weight", "indices" if "indices" in named else "input")
        else:
            return func(*args, **named)
        named |= dict(zip(order, args, strict=False))
        return _looked_up(func, order, named, args[len(order) :])


def _looked_up(
    func: Callable[..., Tensor],
    order: tuple[str, str],
    named: dict[str, Any],
    rest: tuple[Any, ...],
) -> Tensor:
    table = named.pop("weight")
    (numbers_name,) = (name for name in order if name != "weight")
    numbers = named.pop(numbers_name)
    known = (numbers >= 0) & (numbers < table.shape[0])
    inside = torch.where(known, numbers, 0)
    first, second = (table, inside) if order[0] == "weight" else (inside, table)
    return func(first, second, *rest, **named).masked_fill(~known.unsqueeze(-1), math.nan)


class Attributes:
    """What the plain attributes of a module hold, to be found again after every pass.

    Tensors, numbers, texts and containers of these are compared; of any other object only which
    one it is. What a module keeps outside of itself is not found.

    Args:
        module: it and its submodules are looked at now.
    """

    def __init__(self, module: nn.Module) -> None:
        self._parts = [
            (name, vars(part), _ALL_OF_TORCH if isinstance(part, nn.RNNBase) else _OF_TORCH)
            for name, part in module.named_modules()
        ]
        self._before = [_plain(held, skipped) for _, held, skipped in self._parts]

    def changed(self) -> list[str]:
        """Dotted names of attributes that are no longer what they were, in order."""
        found = []
        for (name, held, skipped), before in zip(self._parts, self._before, strict=True):
            now = _plain(held, skipped)
            keys = [key for key in before | now if not _same(before.get(key), now.get(key))]
            found += [f"{name}.{key}" if name else key for key in keys]
        return sorted(found)


def _plain(held: dict[str, Any], skipped: Set[str]) -> dict[str, Any]:
    return {key: _kept(value) for key, value in held.items() if key not in skipped}


def _kept(value: Any) -> Any:
    """A copy as deep as containers go; a tensor stands with the number of its changes in place."""
    if isinstance(value, Tensor):
        return (value, value._version)
    if isinstance(value, dict):
        return tuple((key, _kept(one)) for key, one in value.items())
    if isinstance(value, (list, tuple)):
        return tuple(_kept(one) for one in value)
    return frozenset(value) if isinstance(value, set) else value


def _same(before: Any, now: Any) -> bool:
    if isinstance(before, tuple) and isinstance(now, tuple):
        pairs = zip(before, now, strict=False)
        return len(before) == len(now) and all(_same(*pair) for pair in pairs)
    if before is now:
        return True
    plain = (bool, int, float, str, bytes, frozenset)
    return type(before) is type(now) and isinstance(now, plain) and bool(before == now)
