"""Entries of the log: their envelope, the kinds, and the strict form of each kind's body.

An entry is one line of canonical JSON (RFC 8785) of at most 65,535 bytes:

    {"body": {...}, "index": 7, "kind": "round-intent", "prev": "<sha-256 of entry 6>",
     "run": "...", "time": "2026-01-31T12:00:00.000000Z", "v": 1}

`prev` is null in entry 0. No norms, losses or seeds of single clients have a field here, ever.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, ValidationError

from audit.canonical import dumps, loads, parse_decimal, sha256
from audit.errors import EntryRefused

MAX_ENTRY_BYTES = 65_535


def _check_decimal(text: str) -> str:
    try:
        parse_decimal(text)
    except EntryRefused as error:
        raise ValueError(str(error)) from None
    return text


def _check_figure(text: str) -> str:
    return text if text == "inf" else _check_decimal(text)


Digest = Annotated[str, Field(pattern=r"\A[0-9a-f]{64}\z")]
Decimal = Annotated[str, Field(max_length=64), AfterValidator(_check_decimal)]
Figure = Annotated[str, Field(max_length=64), AfterValidator(_check_figure)]
Name = Annotated[str, Field(min_length=1, max_length=200)]
Text = Annotated[str, Field(max_length=2000)]
Count = Annotated[int, Field(ge=0)]
Time = Annotated[str, Field(pattern=r"\A\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z\z")]


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class Genesis(_Strict):
    """Entry 0: what this run is, under which plan, and what it leaves unprotected."""

    run: Name
    origin: Name
    config_digest: Digest
    plan_digest: Digest
    plan: dict[str, JsonValue]
    roster_digest: Digest
    code_digest: Digest
    lock_digest: Digest
    not_private: bool
    product_version: Name
    unprotected: list[Text]


class PriorEvents(_Strict):
    """Equal mechanism events that a population was charged before this log began."""

    event: dict[str, JsonValue]
    count: Annotated[int, Field(ge=1)]


class BudgetGranted(_Strict):
    """A person granted a population this much privacy loss.

    `adversary` is whom the limit is about, "worst" for the worst that a budget limits. With an
    `order` everything is added up at this Renyi order alone; without one, at the best.
    """

    population: Name
    unit: Name
    adversary: Name
    epsilon: Decimal
    delta: Decimal
    order: Annotated[int, Field(ge=2)] | None
    approver: Name
    expires: Text | None


class BudgetSpent(_Strict):
    """What earlier runs have charged a population, so that cumulative figures can be replayed.

    Where it does not fit one entry, several add up.
    """

    population: Name
    prior: list[PriorEvents]


class Counts(_Strict):
    """Clients of one round: invited, counted in the sum, lost, refused by reason."""

    selected: Count
    reported: Count
    dropped: Count
    rejected: dict[str, Count]


class SecureSumUsed(_Strict):
    """Which secure sum ran, with what parameters, and what it promised."""

    protocol: Name
    parameters: dict[str, JsonValue]
    capabilities: dict[str, JsonValue]
    threshold: Count


class RoundIntent(_Strict):
    """Durable before the sum is opened: everything that the opening will have released."""

    round: Count
    attempt: Count
    config_digest: Digest
    plan_digest: Digest
    cohort_root: Digest
    survivor_root: Digest
    contribution_root: Digest
    counts: Counts
    secure_sum: SecureSumUsed
    clip: Decimal
    event: dict[str, JsonValue]
    reservation: Name


class RoundRelease(_Strict):
    """After the opening: what came out, and the cumulative spend it brought each adversary to.

    `protected` are private metrics of the round by name, `clip_error` the noised part of units
    within its clip bound less the quantile that is aimed at: both stand in the opened sum, under
    its noise.
    """

    round: Count
    attempt: Count
    intent: Digest
    model_before: Digest
    model_after: Digest
    aggregate: Digest
    spend: dict[str, dict[str, Figure]]
    evaluation: Digest | None
    protected: dict[Name, Decimal] | None = None
    clip_error: Decimal | None = None


class RoundAbort(_Strict):
    """A round that released nothing that was used. A charge stays.

    `event` is set where a charge was made that no intent records, so that it can be replayed.
    """

    round: Count
    attempt: Count
    intent: Digest | None
    reason: Text
    charged: bool
    event: dict[str, JsonValue] | None = None


class Recovered(_Strict):
    """A writer was cut off; this is what its successor found beyond the signed head.

    `covered` entries were signed. `adopted` are the digests of whole entries that the head did not
    cover yet and that are signed now; a torn rest of `dropped_bytes` was dropped.
    """

    covered: Count
    adopted: list[Digest]
    dropped_bytes: Count
    dropped_digest: Digest | None


class Resumed(_Strict):
    """The run was cut off, and another process goes on with it.

    `round` and `attempt` are the earliest that may come next; `entries` is how many there were when
    the log was opened again, before what closes an attempt that was cut off. The rest is what
    runs from here on, as in the genesis.
    """

    round: Count
    attempt: Count
    entries: Count
    code_digest: Digest
    lock_digest: Digest
    product_version: Name


class ReportExported(_Strict):
    """Reports were written: SHA-256 of each file by name."""

    files: dict[str, Digest]


Body = (
    Genesis
    | BudgetGranted
    | BudgetSpent
    | RoundIntent
    | RoundRelease
    | RoundAbort
    | Recovered
    | Resumed
    | ReportExported
)

KINDS: Mapping[str, type[Body]] = {
    "genesis": Genesis,
    "budget-granted": BudgetGranted,
    "budget-spent": BudgetSpent,
    "round-intent": RoundIntent,
    "round-release": RoundRelease,
    "round-abort": RoundAbort,
    "recovered": Recovered,
    "resumed": Resumed,
    "report-exported": ReportExported,
}


class _Envelope(_Strict):
    v: Annotated[int, Field(ge=1, le=1)]
    kind: Name
    run: Name
    index: Count
    prev: Digest | None
    time: Time
    body: dict[str, JsonValue]


@dataclass(frozen=True)
class Entry:
    """One entry as stored: its bytes (without the newline) and what they say."""

    raw: bytes
    index: int
    kind: str
    run: str
    prev: str | None
    time: str
    body: Body

    @property
    def digest(self) -> bytes:
        """SHA-256 of the stored bytes."""
        return sha256(self.raw)


def encode_entry(
    kind: str, body: Mapping[str, Any], *, index: int, prev: bytes | None, run: str, time: datetime
) -> bytes:
    """The canonical bytes of an entry, not yet checked by `decode_entry`.

    Raises:
        EntryRefused: the body cannot be written canonically, or `time` has no time zone.
    """
    if time.tzinfo is None:
        raise EntryRefused("the clock gave a time without a zone")
    return dumps(
        {
            "v": 1,
            "kind": kind,
            "run": run,
            "index": index,
            "prev": None if prev is None else prev.hex(),
            "time": time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "body": body,
        }
    )


def decode_entry(raw: bytes) -> Entry:
    """Read the stored bytes of one entry (no newline), strictly.

    Raises:
        EntryRefused: too long, not canonical, an unknown kind, a missing, extra or ill-typed field.
    """
    if len(raw) > MAX_ENTRY_BYTES:
        raise EntryRefused(f"an entry has at most {MAX_ENTRY_BYTES} bytes, this one {len(raw)}")
    value = loads(raw)
    try:
        envelope = _Envelope.model_validate(value)
        model = KINDS.get(envelope.kind)
        if model is None:
            raise EntryRefused(f"kind {envelope.kind!r} is none of {', '.join(KINDS)}")
        body = model.model_validate(envelope.body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "entry"
        raise EntryRefused(f"{place}: {first['msg']}") from None
    return Entry(
        raw, envelope.index, envelope.kind, envelope.run, envelope.prev, envelope.time, body
    )
