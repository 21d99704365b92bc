"""The phases of a key in the making, in saved states; secrets stand in them in clear.

Format: kind u8, then
    1  channel secret 32 bytes | part | words of s_i
    2  channel secret 32 bytes | bundle of commitments | own share behind its length | bundle of
       halves of pair keys
    3  context 32 bytes | set of dealers | key behind its length | words of the share | bundle of
       pair keys
and kind 0 where nothing has begun.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from crypto.codec import Reader, Writer
from crypto.envelope import CONTEXT_BYTES
from crypto.errors import Malformed
from crypto.he_words import pack_polynomials, unpack_polynomials
from crypto.hybrid import HybridKey
from crypto.keys import KEY_BYTES, Secret
from crypto.residues import Words
from crypto.threshold_key import KeyShare
from crypto.threshold_keygen import CHANNEL, Checked, Committed, Dealt, Phase
from crypto.threshold_parameters import ThresholdParameters
from crypto.threshold_sharing import Share

_NONE, _COMMITTED, _DEALT, _CHECKED = range(4)
_LAST: Final = _CHECKED


def write_phase(writer: Writer, phase: Phase | None, parameters: ThresholdParameters) -> None:
    """Append a phase to a saved state."""
    primes = parameters.scheme.data_primes
    if phase is None:
        writer.u8(_NONE)
    elif isinstance(phase, Committed):
        writer.u8(_COMMITTED).fixed(phase.channel.reveal(), KEY_BYTES).sized(phase.part)
        writer.sized(pack_polynomials(phase.secret, primes))
    elif isinstance(phase, Dealt):
        writer.u8(_DEALT).fixed(phase.channel.reveal(), KEY_BYTES).bundle(phase.commitments)
        writer.sized(phase.own.encode(primes)).bundle(_revealed(phase.halves))
    else:
        writer.u8(_CHECKED).fixed(phase.context, CONTEXT_BYTES).indices(phase.dealers)
        writer.sized(phase.key).sized(pack_polynomials(phase.share.words, primes))
        writer.bundle(_revealed(phase.pairs))


def read_phase(reader: Reader, parameters: ThresholdParameters, point: int) -> Phase | None:
    """Inverse of write_phase, for the member at this point.

    Raises:
        Malformed: there is no such phase, or something in it is not of its form.
    """
    scheme = parameters.scheme
    kind = reader.u8()
    if kind > _LAST:
        raise Malformed(f"there is no phase {kind}")
    if kind == _NONE:
        return None
    if kind == _COMMITTED:
        channel = HybridKey(reader.fixed(KEY_BYTES), CHANNEL)
        return Committed(channel, reader.sized(), _words(reader, parameters))
    if kind == _DEALT:
        channel = HybridKey(reader.fixed(KEY_BYTES), CHANNEL)
        commitments = reader.bundle()
        own = Share.decode(reader.sized(), scheme.data_primes, scheme.degree)
        return Dealt(channel, commitments, own, _secrets(reader))
    context, dealers, key = reader.fixed(CONTEXT_BYTES), reader.indices(), reader.sized()
    share = KeyShare(parameters, _words(reader, parameters), point)
    return Checked(context, dealers, key, share, _secrets(reader))


def _revealed(secrets: Mapping[int, Secret]) -> dict[int, bytes]:
    return {k: secret.reveal() for k, secret in secrets.items()}


def _secrets(reader: Reader) -> dict[int, Secret]:
    found = {k: Secret(value) for k, value in reader.bundle().items()}
    if any(len(secret.reveal()) != KEY_BYTES for secret in found.values()):
        raise Malformed(f"a key of a pair does not have {KEY_BYTES} bytes")
    return found


def _words(reader: Reader, parameters: ThresholdParameters) -> Words:
    scheme = parameters.scheme
    return unpack_polynomials(reader.sized_view(), (), scheme.data_primes, scheme.degree)
