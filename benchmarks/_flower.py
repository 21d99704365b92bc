"""One round of Flower's SecAgg+ in this process, by Flower's own workflow and client mod.

`SecAggPlusWorkflow` runs on a grid that hands every message to `secaggplus_mod`: all four stages
(setup, share keys, collect masked vectors, unmask) are Flower's code, unchanged. What a stage
sends goes over as the bytes of Flower's Protobuf messages, and both ends' encoding counts.

Left out, which flatters Flower: the network and the processes; the way from a fit result to
integers (reading the arrays, weighting, quantisation) and from the integer sum back to floats, but
for two passes over the sum, because our contestant starts from integers and ends with them. The
fit instruction carries no model. A dropped client advertises and shares, then is silent, and no
time is spent waiting.

Flower shares secrets in pure Python, at 100 clients for minutes. Above `samples` calls with equal
sizes, sharing and recovering are not run again: the shares are stand-ins of the same size, and the
median of the real calls is charged to whoever would have run them. All else is always run, and
the sum is always checked.
"""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import ExitStack
from importlib import import_module
from typing import Any, ParamSpec, TypeVar
from unittest.mock import patch

import numpy as np
from flwr.app import Context, Message, RecordDict
from flwr.common import Code, FitIns, FitRes, Parameters, Status, ndarrays_to_parameters
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.compat.common import recorddict_compat
from flwr.proto.message_pb2 import Message as WireMessage
from flwr.server.compat.legacy_context import LegacyContext
from flwr.supercore.task_identity import TaskIdentity
from numpy.typing import NDArray

from benchmarks._rounds import Round, Vector

P = ParamSpec("P")
R = TypeVar("R")

# By name: the package of the mod gives a function of the same name in the module's place.
mod = import_module("flwr.client.mod.secure_aggregation.secaggplus_mod")
workflow = import_module("flwr.server.workflow.secure_aggregation.secaggplus_workflow")

Sizes = tuple[str, int, int] | tuple[str, int, int, int]

COLLECT = 2  # the stage of the masked vectors
CLIP = 8.0
MAX_WEIGHT = 1000.0


class Clock:
    """Wall time, less what is left out, plus what is charged for work that was not run again."""

    def __init__(self) -> None:
        self._offset = 0.0

    def now(self) -> float:
        """Seconds since an arbitrary start."""
        return time.perf_counter() + self._offset

    def charge(self, seconds: float) -> None:
        """Count work that is not run."""
        self._offset += seconds

    def leave_out(self, function: Callable[P, R]) -> Callable[P, R]:
        """Return the function with its time not counted."""

        def untimed(*args: P.args, **kwargs: P.kwargs) -> R:
            start = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                self._offset -= time.perf_counter() - start

        return untimed


class Shamir:
    """Flower's secret sharing, really run `samples` times for each size, then only charged.

    Use one object for several rounds to share the samples; with `samples` None all is run.

    Attributes:
        spent: seconds of all calls so far, run or charged, by `split` and `combine`.
    """

    def __init__(self, samples: int | None = None) -> None:
        self._samples = samples
        self._seconds: dict[Sizes, list[float]] = {}
        self._dealt: dict[int, list[bytes]] = {}
        self._stand_ins: dict[bytes, bytes] = {}
        self.spent = {"split": 0.0, "combine": 0.0}
        self._split = mod.create_shares
        self._combine = workflow.combine_shares

    def create_shares(self, clock: Clock, secret: bytes, threshold: int, num: int) -> list[bytes]:
        """Do or charge `create_shares`."""
        sizes = ("split", len(secret) // 16, threshold, num)
        if self._due(sizes):
            shares: list[bytes] = self._timed(sizes, self._split, secret, threshold, num)
            self._dealt[len(shares[0])] = shares
            return shares
        self._charge(clock, sizes)
        padded = secret + bytes(16 - len(secret) % 16)
        shares = [k.to_bytes(4, "little") + padded for k in range(1, num + 1)]
        self._stand_ins |= dict.fromkeys(shares, secret)
        return shares

    def combine_shares(self, clock: Clock, shares: list[bytes]) -> bytes:
        """Do or charge `combine_shares`."""
        sizes = ("combine", len(shares[0]), len(shares))
        secret = self._stand_ins.get(shares[0])
        if secret is None:
            found: bytes = self._timed(sizes, self._combine, shares)
            return found
        if self._due(sizes):
            self._timed(sizes, self._combine, self._dealt[len(shares[0])][: len(shares)])
        else:
            self._charge(clock, sizes)
        return secret

    def _charge(self, clock: Clock, sizes: Sizes) -> None:
        seconds = statistics.median(self._seconds[sizes])
        self.spent[sizes[0]] += seconds
        clock.charge(seconds)

    def _due(self, sizes: Sizes) -> bool:
        return self._samples is None or len(self._seconds.get(sizes, ())) < self._samples

    def _timed(self, sizes: Sizes, call: Callable[..., Any], *arguments: object) -> Any:
        start = time.perf_counter()
        result = call(*arguments)
        seconds = time.perf_counter() - start
        self._seconds.setdefault(sizes, []).append(seconds)
        self.spent[sizes[0]] += seconds
        return result


class _Proxy:
    def __init__(self, node_id: int) -> None:
        self.node_id = node_id


class _Strategy:
    """Select every client; the aggregate is of no use."""

    def __init__(self, nodes: Iterable[int]) -> None:
        self._nodes = tuple(nodes)

    def configure_fit(self, *_: object) -> list[tuple[_Proxy, FitIns]]:
        return [(_Proxy(node), FitIns(Parameters([], ""), {})) for node in self._nodes]

    def aggregate_fit(self, *_: object) -> tuple[None, dict[str, Any]]:
        return None, {}


class _Available:
    def num_available(self) -> int:
        return 0


class _Grid:
    """Carry messages as bytes between the workflow and the mods, and time the mods."""

    def __init__(self, clock: Clock, updates: Mapping[int, RecordDict], gone: Collection[int]):
        self._clock = clock
        self._updates = updates
        self._gone = gone
        self._contexts = {node: Context(1, node, {}, RecordDict(), {}) for node in updates}
        self.clients = dict.fromkeys(updates, 0.0)
        self.uploads = dict.fromkeys(updates, 0)
        self.traffic = dict.fromkeys(updates, 0)
        self.masking = dict.fromkeys(updates, 0.0)
        self._stage = 0

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> list[Message]:
        """Deliver in turn; whoever is gone is silent from the third stage on."""
        silent = self._gone if self._stage >= COLLECT else ()
        replies = []
        for message in messages:
            node = message.metadata.dst_node_id
            if node in silent:
                continue
            request = message_to_proto(message).SerializeToString()
            start = self._clock.now()
            reply = self._answer(node, request)
            seconds = self._clock.now() - start
            self.clients[node] += seconds
            self.traffic[node] += len(request) + len(reply)
            if self._stage == COLLECT:
                self.uploads[node] = len(reply)
                self.masking[node] = seconds
            replies.append(message_from_proto(WireMessage.FromString(reply)))
        self._stage += 1
        return replies

    def _answer(self, node: int, request: bytes) -> bytes:
        def train(asked: Message, _: Context) -> Message:
            return Message(self._updates[node], reply_to=asked)

        message = message_from_proto(WireMessage.FromString(request))
        reply = mod.secaggplus_mod(message, self._contexts[node], train)
        answer: bytes = message_to_proto(reply).SerializeToString()
        return answer


def flower_round(
    vectors: Mapping[int, Vector],
    *,
    value_bits: int,
    ring_bits: int,
    threshold: int,
    dropped: Collection[int],
    shamir: Shamir,
) -> Round:
    """Sum integers in [-2^(value_bits-1), 2^(value_bits-1)) by SecAgg+ on a complete graph.

    The floats given to Flower lie on its quantisation grid, so that its sum is exact.
    """
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 0
    clock = Clock()
    half = 1 << (value_bits - 1)
    updates = {node: _fit_result(vector * (CLIP / half)) for node, vector in vectors.items()}
    grid = _Grid(clock, updates, dropped)
    sums: list[Vector] = []
    dequantize = workflow.dequantize

    def note_sum(arrays: list[Vector], *scale: Any) -> Any:
        sums.append(arrays[0] - half * (len(vectors) - len(dropped)))
        return dequantize(arrays, *scale)

    replaced: list[tuple[Any, str, Callable[..., Any]]] = [
        (mod, "create_shares", lambda *a: shamir.create_shares(clock, *a)),
        (workflow, "combine_shares", lambda shares: shamir.combine_shares(clock, shares)),
        (workflow, "dequantize", clock.leave_out(note_sum)),
    ]
    left_out: list[tuple[Any, str]] = [
        (recorddict_compat, "recorddict_to_fitres"),
        (mod, "parameters_to_ndarrays"),
        (mod, "parameters_multiply"),
        (mod, "quantize"),
        (workflow, "ndarrays_to_parameters"),
    ]
    replaced += [(owner, name, clock.leave_out(getattr(owner, name))) for owner, name in left_out]
    with ExitStack() as stack:
        stack.callback(logging.getLogger("flwr").setLevel, logging.getLogger("flwr").level)
        logging.getLogger("flwr").setLevel(logging.ERROR)
        for owner, name, replacement in replaced:
            stack.enter_context(patch.object(owner, name, replacement))
        context = _server_context(vectors)
        protocol = workflow.SecAggPlusWorkflow(
            len(vectors),
            threshold,
            max_weight=MAX_WEIGHT,
            clipping_range=CLIP,
            quantization_range=1 << value_bits,
            modulus_range=1 << ring_bits,
        )
        before = dict(shamir.spent)
        start = clock.now()
        protocol(grid, context)
        total = clock.now() - start
    spent = {name: seconds - before[name] for name, seconds in shamir.spent.items()}
    survivors = [node for node in vectors if node not in dropped]
    return Round(
        total=sums[0].astype(np.int64),
        seconds=total,
        client_seconds=tuple(grid.clients[node] for node in survivors),
        mask_seconds=tuple(grid.masking[node] for node in survivors),
        upload_bytes=grid.uploads[survivors[0]],
        other_bytes=tuple(grid.traffic[node] - grid.uploads[node] for node in survivors),
        client_sharing_seconds=spent["split"] / len(vectors),
        sharing_seconds=sum(spent.values()),
    )


def _fit_result(update: NDArray[np.floating[Any]]) -> RecordDict:
    parameters = ndarrays_to_parameters([update.astype(np.float32)])
    result = FitRes(Status(Code.OK, ""), parameters, int(MAX_WEIGHT), {})
    return recorddict_compat.fitres_to_recorddict(result, keep_input=True)


def _server_context(nodes: Iterable[int]) -> LegacyContext:
    context = LegacyContext(
        Context(1, 0, {}, RecordDict(), {}),
        strategy=_Strategy(nodes),  # type: ignore[arg-type]
        client_manager=_Available(),  # type: ignore[arg-type]
    )
    empty = recorddict_compat.parameters_to_arrayrecord(Parameters([], ""), keep_input=True)
    context.state.array_records[workflow.MAIN_PARAMS_RECORD] = empty
    configuration = workflow.ConfigRecord({workflow.WorkflowKey.CURRENT_ROUND: 1})
    context.state.config_records[workflow.MAIN_CONFIGS_RECORD] = configuration
    return context
