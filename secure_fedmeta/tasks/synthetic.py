"""Synthetic(alpha, beta): users with classifiers of their own, generated, public.

The definition is that of Li et al. (2020, "Federated optimization in heterogeneous networks", arXiv
1812.06127, section 5.1) with the numbers of pFedMe (Dinh et al. 2020, arXiv 2006.08848): 100 users,
60 features, 10 classes. User k has

- B_k ~ N(0, beta) and a centre v_k, each of its coordinates ~ N(B_k, 1);
- weights W_k `[60, 10]` and b_k `[10]`, each entry ~ N(u_k, 1) with u_k ~ N(0, alpha);
- inputs x ~ N(v_k, diag(j^-1.2)) and labels argmax(x W_k + b_k);
- 50 + floor(L) of them, L log-normal with parameters 4 and 2.

As in the published generators alpha and beta are standard deviations. u_k adds the same number to
all ten classes and so changes no label: alpha has no effect, and there is no option for it. The
weights of users are then independent, so that what is learned from others says nothing about a new
user's labels, only about how to adapt to them. Published scores are of users that trained.

Departures, so that everything has a public bound: a user has at most `max_rows` rows, and inputs
beyond [-5, 5] are set to the bound and counted, after the label was computed. What is generated
follows from a public data seed and the user's name: a larger federation leaves the users of the
smaller one as they are. Whoever is held out is a further user.

Units: a client is one user, so that the source carries user beside record, task and client. Blocks
are cut by a keyed hash of the record's number and the user's generated, hence public, size.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator
from scipy.special import ndtri

from secure_fedmeta.tasks import drawing
from secure_fedmeta.tasks.blocked import BlockedSource
from secure_fedmeta.tasks.blocks import by_hash, cut
from secure_fedmeta.tasks.protocol import Floats, Record, SourceInfo, SourceOptions
from secure_fedmeta.tasks.site import Site

Floats64: TypeAlias = NDArray[np.float64]

FEATURES = 60
CLASSES = 10
LEAST_ROWS = 50
BOUND = 5.0
_NAMES = tuple(f"x{number}" for number in range(1, FEATURES + 1))
# Public: the data are. It cuts blocks and hides nothing.
_BLOCK_KEY = b"secure-fedmeta/synthetic/1"


class SyntheticOptions(SourceOptions):
    """Options of the synthetic source.

    Attributes:
        clients: users that train, each a client.
        held_out_clients: further users for evaluation.
        beta: how far the users' inputs lie apart.
        max_rows: most rows of one user; a larger draw is cut to it.
        records_per_block: mean records of a block.
        k_support: support records for one draw.
        k_query: query records for one draw.
        data_seed: which public data are generated; no secret, and no part of any privacy claim.
    """

    clients: int = Field(default=100, ge=1, le=1000)
    held_out_clients: int = Field(default=20, ge=0, le=1000)
    beta: float = Field(default=0.5, ge=0, le=10)
    max_rows: int = Field(default=500, ge=LEAST_ROWS, le=100_000)
    records_per_block: int = Field(default=28, ge=2, le=1000)
    k_support: int = Field(default=10, ge=1)
    k_query: int = Field(default=10, ge=1)
    data_seed: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _every_user_has_a_task(self) -> Self:
        """Then the largest of a user's blocks always holds enough rows."""
        most = min(self.records_per_block, LEAST_ROWS)
        if self.k_support + self.k_query > most:
            raise ValueError(
                f"k_support {self.k_support} + k_query {self.k_query} exceed {most}, the least of "
                f"records_per_block and {LEAST_ROWS} rows that every user has"
            )
        return self


@dataclass(frozen=True, eq=False)
class User:
    """What is generated for one user.

    Attributes:
        weights: the user's own classifier, `[61, 10] float64`, the last row for the constant.
        x: inputs before they are bounded, `[rows, 60] float64`.
        y: classes, `[rows]` from 0.
    """

    weights: Floats64
    x: Floats64
    y: NDArray[np.intp]

    @property
    def bounded(self) -> Floats:
        """The inputs within the declared bounds, `[rows, 60] float32`."""
        return np.clip(self.x, -BOUND, BOUND).astype(np.float32)


def size_of(name: str, options: SyntheticOptions) -> int:
    """Rows of a user: 50 + floor(L), at most `max_rows`."""
    (normal,) = _normals(_key(name, options, "size"), 1)
    return min(options.max_rows, LEAST_ROWS + int(np.exp(4.0 + 2.0 * normal)))


def generate(name: str, options: SyntheticOptions) -> User:
    """The rows of one user, the same whoever else there is."""
    shared = _normals(_key(name, options, "user"), 1 + FEATURES + (FEATURES + 1) * CLASSES)
    centre = options.beta * shared[0] + shared[1 : 1 + FEATURES]
    weights = shared[1 + FEATURES :].reshape(FEATURES + 1, CLASSES)
    rows = size_of(name, options)
    spread = np.arange(1, FEATURES + 1) ** -0.6  # the variance is j^-1.2
    noise = _normals(_key(name, options, "inputs"), rows * FEATURES).reshape(rows, FEATURES)
    x = centre + spread * noise
    return User(weights, x, (x @ weights[:FEATURES] + weights[FEATURES]).argmax(axis=1))


class SyntheticSource(BlockedSource):
    """Users with linear classifiers of their own; one client each.

    Args:
        options: sizes and the public data seed.
        site: not needed: the data are generated.
        records: stand in for the generated ones (`SourceClass`).

    Raises:
        DataError: given records lack a client, or leave one without a task.
    """

    Options: ClassVar[type[SourceOptions]] = SyntheticOptions
    name = "synthetic"

    def __init__(
        self, options: SourceOptions, *, site: Site, records: Iterable[Record] | None = None
    ) -> None:
        del site  # generated
        chosen = SyntheticOptions.model_validate(options.model_dump())
        held_out = tuple(f"held-out-{number:03d}" for number in range(chosen.held_out_clients))
        names = (*(f"user-{number:03d}" for number in range(chosen.clients)), *held_out)
        clipped: dict[str, int] = {}
        if records is None:
            users = {name: generate(name, chosen) for name in names}
            held = tuple(_records(users))
            beyond = sum((np.abs(user.x) > BOUND).sum(axis=0) for user in users.values())
            clipped = {name: int(n) for name, n in zip(_NAMES, beyond, strict=True) if n}
        else:
            held = tuple(records)
        sizes = {name: size_of(name, chosen) for name in names}
        blocking = by_hash(_BLOCK_KEY, sizes, chosen.records_per_block)
        blocks = cut(
            held,
            names=names,
            block_of=blocking.block_of,
            min_records=chosen.k_support + chosen.k_query,
        )
        info = SourceInfo(
            rows=len(held),
            clients=len(names),
            tasks=sum(len(client.blocks) for client in blocks.clients.values()),
            task_bounds=blocking.counts,
            units=blocking.units | {"user"},
            licence="generated by this product; no third-party data",
            provenance=(
                f"Synthetic(0.5, {chosen.beta:g}) of pFedMe, Dinh et al. 2020, rows and inputs "
                f"bounded, public data seed {chosen.data_seed}"
            ),
            public=True,
            features=_NAMES,
            input_bounds=(-BOUND, BOUND),
            output_dim=CLASSES,
            loss="cross_entropy",
            metric="accuracy",
            k_support=chosen.k_support,
            k_query=chosen.k_query,
            held_out=held_out,
            excluded=blocks.excluded,
            clipped=clipped,
        )
        super().__init__(info, blocks.clients, held)


def _records(users: dict[str, User]) -> Iterator[Record]:
    for name, user in users.items():
        for number, (x, y) in enumerate(zip(user.bounded, user.y.tolist(), strict=True)):
            yield Record(f"{name}/{number:05d}", name, name, x, float(y))


def _key(name: str, options: SyntheticOptions, part: str) -> bytes:
    seed = str(options.data_seed).encode()
    return drawing.keyed(seed, "secure-fedmeta/synthetic", name, part)


def _normals(key: bytes, count: int) -> Floats64:
    """`[count]` standard normal numbers of a key's stream, finite."""
    normals: Floats64 = ndtri(drawing.uniforms(key, count) + 2.0**-54)
    return normals
