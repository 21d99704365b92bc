"""An officer as a state machine: it holds a decryption key for one attempt at a time, and no data.

It is a party of its own, run by neither the aggregator nor a client: whoever holds both an
officer's key and the uploads can open every single one.
"""

from __future__ import annotations

from collections.abc import Callable

from crypto.keys import Identity
from crypto.secure_sum import Seat, SumOfficer, Terms
from secure_fedmeta.party import Handout, Party
from secure_fedmeta.setting import Setting
from secure_fedmeta.vault import Vault


class Officer(Party):
    """One officer of the roster.

    Args:
        setting: the run's public facts, as this officer read them.
        index: its place in the roster, after the members.
        identity: its signing key.
        rand: its source of keys and seeds.
        vault: see Party.
    """

    def __init__(
        self,
        setting: Setting,
        *,
        index: int,
        identity: Identity,
        rand: Callable[[int], bytes],
        vault: Vault | None = None,
    ) -> None:
        super().__init__(setting, index=index, vault=vault)
        self._identity = identity
        self._rand = rand

    def _machine_for(self, terms: Terms, model: Handout) -> SumOfficer:
        model.take()  # an officer computes nothing at it
        return self._setting.protocol.officer(terms, self._seat(terms, model))

    def _restored(self, terms: Terms, model: Handout, state: bytes) -> SumOfficer:
        return self._setting.protocol.restore_officer(terms, self._seat(terms, model), state)

    def _seat(self, terms: Terms, model: Handout) -> Seat:
        return Seat(
            index=self._index,
            identity=self._identity,
            rand=self._rand,
            intent_check=self._watch.check(terms, model.clip),
        )
