"""An officer as a state machine: it holds a decryption key for one attempt at a time, and no data.

It is a party of its own, run by neither the aggregator nor a client: whoever holds both an
officer's key and the uploads can open every single one.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from crypto.keys import Identity
from crypto.secure_sum import SumOfficer, Terms
from secure_fedmeta.party import Party
from secure_fedmeta.setting import Setting


class Officer(Party):
    """One officer of the roster.

    Args:
        setting: the run's public facts, as this officer read them.
        index: its place in the roster, after the members.
        identity: its signing key.
        rand: its source of keys and seeds.
    """

    def __init__(
        self,
        setting: Setting,
        *,
        index: int,
        identity: Identity,
        rand: Callable[[int], bytes],
    ) -> None:
        super().__init__(setting, index=index)
        self._identity = identity
        self._rand = rand

    def _machine_for(self, terms: Terms, model: torch.Tensor) -> SumOfficer:
        del model
        return self._setting.protocol.officer(
            terms,
            index=self._index,
            identity=self._identity,
            rand=self._rand,
            intent_check=self._watch.check(terms),
        )
