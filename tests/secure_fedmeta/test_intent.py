"""Evidence of the logged intent: what a party sees of the log before it helps to open a sum."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from audit.canonical import dumps, loads, sha256
from audit.errors import NoteRefused
from audit.merkle import leaf_hash, root_of
from audit.note import Checkpoint, LogSigner
from crypto.errors import Malformed, MessageRefused
from crypto.secure_sum import IntentCheck, Ready, Terms
from secure_fedmeta import intent
from secure_fedmeta.exchange import Intent
from secure_fedmeta.intent import Evidence, LogWatch
from secure_fedmeta.outcome import Release
from secure_fedmeta.transport.memory import Delivery, Faults
from tests.secure_fedmeta.federation import CLIENTS, Federation

CLIP = 1.0  # of the tiny config


class Logged:
    """A federation whose first round is logged and not yet opened."""

    def __init__(self, folder: Path, changes: dict[str, object] | None = None) -> None:
        self.federation = Federation(folder, changes)
        self.evidence = self.record(1)

    def record(self, round_index: int) -> Evidence:
        """Run a round up to its intent."""
        exchange = self.federation.aggregator.open_round(round_index, 1)
        outgoing: Any = exchange.begin()
        while not isinstance(outgoing, Ready):
            for index, message in outgoing.items():
                reply = self.federation.parties.endpoints[index].handle(message)
                exchange.receive(index, reply)
            outgoing = exchange.advance()
        return Evidence.decode(
            self.federation.aggregator.record_intent(exchange, outgoing).evidence
        )

    def terms(self, round_index: int = 1) -> Terms:
        setting = self.federation.parties.setting
        digest = setting.handout_digest(self.federation.parts.initial(), setting.plan.clip)
        return setting.terms(round_index=round_index, attempt=1, model_digest=digest)

    def watch(self) -> LogWatch:
        return LogWatch(self.federation.parties.setting)

    def check(self, round_index: int = 1) -> IntentCheck:
        """Of a party that sees the log for the first time."""
        return self.watch().check(self.terms(round_index), CLIP)

    def signed(self, *leaves: bytes, signer: LogSigner | None = None) -> bytes:
        """A checkpoint over these leaves by the log's own key, or by another."""
        key = self.federation.signer if signer is None else signer
        return key.sign(Checkpoint(key.origin, len(leaves), root_of(leaves)))

    def relogged(self, entry: bytes) -> Evidence:
        """Evidence as if this entry had been logged in the place of the intent."""
        leaves = [*self.evidence.leaves[:-1], leaf_hash(entry)]
        return Evidence(entry, self.signed(*leaves), leaves)

    def changed(self, **body: object) -> Evidence:
        """Evidence of an intent with other contents, logged in the place of the right one."""
        entry = loads(self.evidence.entry)
        entry["body"] |= body
        return self.relogged(dumps(entry))


@pytest.fixture
def logged(tmp_path: Path) -> Logged:
    return Logged(tmp_path)


def refuses(check: IntentCheck, evidence: Evidence, match: str, survivors: int = CLIENTS) -> None:
    with pytest.raises(Malformed, match=match):
        check(evidence.encode(), survivors)


def test_the_evidence_of_the_intent_is_accepted(logged: Logged) -> None:
    watch = logged.watch()
    digest = watch.check(logged.terms(), CLIP)(logged.evidence.encode(), CLIENTS)
    assert digest.hex() == logged.federation.log.open_intent.digest.hex()  # type: ignore[union-attr]
    assert watch.seen == logged.federation.log.head


def test_evidence_has_one_encoding(logged: Logged) -> None:
    data = logged.evidence.encode()
    assert Evidence.decode(data) == logged.evidence
    for wrong in (data[:-1], data + b"\0", data[:-32], b"", b"\xff" * 40):
        with pytest.raises(Malformed):
            Evidence.decode(wrong)


def test_an_entry_that_is_not_in_the_log_is_refused(logged: Logged) -> None:
    """An unlogged intent: right in every word, and nowhere under the signed root."""
    entry = loads(logged.evidence.entry)
    entry["body"]["reservation"] = "another"
    check = logged.check()
    refuses(check, replace(logged.evidence, entry=dumps(entry)), "does not stand in the log")
    # Its own leaf in place of the right one, under the root that was signed.
    leaves = [*logged.evidence.leaves[:-1], leaf_hash(dumps(entry))]
    forged = Evidence(dumps(entry), logged.evidence.checkpoint, leaves)
    refuses(check, forged, "do not hash to the root")
    # An index beyond the log.
    entry["index"] = len(leaves)
    refuses(check, logged.relogged(dumps(entry)), "does not stand in the log")
    assert check(logged.evidence.encode(), CLIENTS)


def test_a_checkpoint_by_another_key_is_refused(logged: Logged) -> None:
    for signer in (
        LogSigner.generate(logged.federation.signer.origin, b"x" * 32),
        LogSigner.generate("test/other", bytes(32)),
    ):
        head = logged.signed(*logged.evidence.leaves, signer=signer)
        refuses(logged.check(), replace(logged.evidence, checkpoint=head), "no signature by key")
    head = logged.evidence.checkpoint
    size = str(len(logged.evidence.leaves)).encode()
    forged = head.replace(b"\n" + size + b"\n", b"\n" + str(int(size) - 1).encode() + b"\n")
    fewer = Evidence(logged.evidence.entry, forged, logged.evidence.leaves[:-1])
    refuses(logged.check(), fewer, "signature does not match")


def test_a_checkpoint_of_another_size_than_its_leaves_is_refused(logged: Logged) -> None:
    """Signed by the log's own key: what a party keeps of it would not say where the log stood."""
    key, leaves = logged.federation.signer, logged.evidence.leaves
    for size in (len(leaves) - 1, len(leaves) + 1):
        head = key.sign(Checkpoint(key.origin, size, root_of(leaves)))
        wrong = replace(logged.evidence, checkpoint=head)
        refuses(logged.check(), wrong, "do not hash to the root of the checkpoint")


@pytest.mark.parametrize(
    ("body", "name"),
    [
        ({"round": 2}, "round"),
        ({"attempt": 2}, "attempt"),
        ({"config_digest": "00" * 32}, "config_digest"),
        ({"plan_digest": "00" * 32}, "plan_digest"),
        ({"clip": "2.0"}, "clip"),
        ({"event": {}}, "event"),
    ],
)
def test_an_intent_of_another_round_or_under_other_terms_is_refused(
    logged: Logged, body: dict[str, object], name: str
) -> None:
    refuses(logged.check(), logged.changed(**body), f"{name} is another one than")


@pytest.mark.parametrize("field", ["protocol", "threshold", "parameters", "capabilities"])
def test_an_intent_under_another_secure_sum_is_refused(logged: Logged, field: str) -> None:
    stated = loads(logged.evidence.entry)["body"]["secure_sum"]
    other = {"protocol": "plain", "threshold": 1, "parameters": {}, "capabilities": {}}[field]
    evidence = logged.changed(secure_sum={**stated, field: other})
    refuses(logged.check(), evidence, "secure_sum is another one than")


def test_the_evidence_of_one_round_does_not_open_another(logged: Logged) -> None:
    """Round 2 under the intent of round 1, which is logged and signed."""
    refuses(logged.check(round_index=2), logged.evidence, "round is another one than")


def test_a_sum_of_fewer_than_were_logged_is_refused(logged: Logged) -> None:
    """With fewer survivors there is less noise: the event in the log would promise too much."""
    refuses(logged.check(), logged.evidence, "event is another one", survivors=CLIENTS - 1)
    counts = loads(logged.evidence.entry)["body"]["counts"]
    more = logged.changed(counts={**counts, "reported": CLIENTS - 1})
    refuses(logged.check(), more, f"a sum of {CLIENTS - 1} vectors, not {CLIENTS}")


def test_an_entry_of_another_kind_or_run_is_refused(logged: Logged) -> None:
    entry = loads(logged.evidence.entry)
    other = dumps({**entry, "run": "11" * 32})
    refuses(logged.check(), logged.relogged(other), "of another run")
    abort = {"round": 1, "attempt": 1, "intent": None, "reason": "", "charged": False}
    refuses(
        logged.check(),
        logged.relogged(dumps({**entry, "kind": "round-abort", "body": abort})),
        "the entry is a round-abort",
    )
    refuses(logged.check(), logged.relogged(b"{}"), "Field required")


def test_a_log_that_shrank_is_refused(logged: Logged) -> None:
    watch = logged.watch()
    watch.seen = logged.signed(*logged.evidence.leaves, bytes(32))
    size = len(logged.evidence.leaves)
    refuses(
        watch.check(logged.terms(), CLIP),
        logged.evidence,
        f"a log of {size} entries; this party was",
    )


def test_a_fork_of_the_log_is_refused(logged: Logged) -> None:
    """A second history, signed with the same key, longer than the one that was shown."""
    watch = logged.watch()
    check = watch.check(logged.terms(), CLIP)
    check(logged.evidence.encode(), CLIENTS)
    seen = watch.seen
    entry = {**loads(logged.evidence.entry), "index": 4}
    forked = [*logged.evidence.leaves[:-1], bytes(32), bytes(32), leaf_hash(dumps(entry))]
    fork = Evidence(dumps(entry), logged.signed(*forked), forked)
    refuses(check, fork, "does not extend the one that this party was shown")
    assert watch.seen == seen
    # Another party, which saw nothing before, cannot tell: stated in the capabilities.
    fresh = [*forked[:4], leaf_hash(dumps(entry))]
    assert logged.check()(Evidence(dumps(entry), logged.signed(*fresh), fresh).encode(), CLIENTS)
    notes = logged.federation.parties.setting.protocol.capabilities().notes
    assert any("can be shown two logs" in note for note in notes)


def test_what_is_refused_moves_nothing(logged: Logged) -> None:
    watch = logged.watch()
    refuses(watch.check(logged.terms(2), CLIP), logged.evidence, "round")
    assert watch.seen is None


def without(name: str) -> Callable[[pytest.MonkeyPatch], None]:
    """A build in which one of the two halves of the check is missing."""

    def weaken(patch: pytest.MonkeyPatch) -> None:
        if name == "log":
            patch.setattr(LogWatch, "_check_log", lambda *_: None)
        else:
            patch.setattr(intent, "facts", lambda *_, **__: {})

    return weaken


@pytest.mark.parametrize(
    ("weaken", "reason"),
    [(without("log"), "no signature by key"), (without("facts"), "round is another one than")],
)
@pytest.mark.parametrize("protocol", ["masking", "he"])
def test_nothing_is_opened_without_a_right_intent_and_it_is_in_a_weakened_build(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    weaken: Callable[[pytest.MonkeyPatch], None],
    reason: str,
    protocol: str,
) -> None:
    """The aggregator signs a log with a key of its own, or logs another round than it opens."""
    changes: dict[str, object] = {"secure_sum.protocol": protocol}
    if protocol == "he":
        changes["privacy.max_colluders"] = 0

    def attack(folder: Path) -> tuple[Federation, object]:
        folder.mkdir()
        federation = Federation(folder, changes)
        real = federation.aggregator.record_intent

        def lie(exchange: Any, ready: Ready) -> Intent:
            made = Evidence.decode(real(exchange, ready).evidence)
            if "key" in reason:
                signer = LogSigner.generate("test/federation", b"y" * 32)
                head = Checkpoint(signer.origin, len(made.leaves), root_of(made.leaves))
                forged = replace(made, checkpoint=signer.sign(head))
                return Intent(exchange.intent, forged.encode())
            entry = loads(made.entry)
            entry["body"]["round"] = 7
            raw = dumps(entry)
            leaves = [*made.leaves[:-1], leaf_hash(raw)]
            head = Checkpoint(federation.signer.origin, len(leaves), root_of(leaves))
            forged = Evidence(raw, federation.signer.sign(head), leaves)
            return Intent(sha256(raw), forged.encode())

        federation.aggregator.record_intent = lie  # type: ignore[method-assign]
        return federation, federation.round(1)

    with monkeypatch.context() as weakened:
        weaken(weakened)
        federation, outcome = attack(tmp_path / "weak")
        assert isinstance(outcome, Release)
    federation, outcome = attack(tmp_path / "real")
    assert not isinstance(outcome, Release)
    assert not federation.spy.sums
    assert federation.refused
    assert all(reason in str(error) for _, error in federation.refused)


def test_a_party_that_missed_rounds_goes_on(tmp_path: Path) -> None:
    """It saw no intent in round 2, and in round 3 the same evidence serves it and the others."""
    federation = Federation(tmp_path, faults=_gone(client=4, after=5, until=6))
    for index in (1, 2, 3):
        assert isinstance(federation.round(index), Release)
    watched = federation.parties.clients[4]._watch.seen
    assert watched is not None
    assert federation.signer.verifier.open(watched).size == federation.log.size - 1
    assert all(isinstance(error, MessageRefused) for _, error in federation.refused)


def _gone(*, client: int, after: int, until: int) -> Faults:
    """Loses what a client sends between two of its messages."""

    def fault(delivery: Delivery) -> list[Delivery]:
        lost = delivery.client == client and not delivery.upload
        return [] if lost and after <= delivery.sequence < until else [delivery]

    return fault


def test_a_key_that_is_none_is_refused_when_the_party_is_made(logged: Logged) -> None:
    setting = replace(logged.federation.parties.setting, log_key="no key")
    with pytest.raises(NoteRefused, match="a key is"):
        LogWatch(setting)
