"""Microsoft SEAL through `tenseal.sealapi`.

SEAL's own loader accepts ciphertexts of size 0, 3 and 4, transparent ones, trailing bytes and
compressed bombs, so it never sees a foreign byte: what arrives are arrays that he_messages has
checked, and what is loaded here is a header that this process saved itself followed by their
words. Objects pass through an anonymous file in memory, since the binding reads and writes paths.
A secret key passes through it only to be saved or restored, and is overwritten there at once; SEAL
clears its own memory of one when it is let go.

Randomness is SEAL's own, 64 bytes of /dev/urandom for every key and encryption. It cannot be
injected: a generator factory with a given seed starts again at every encryption, which would give
all ciphertexts of a vector the same noise.
"""

from __future__ import annotations

import os
import struct
import threading
import weakref
from functools import lru_cache
from typing import Any, Final

import numpy as np
import tenseal.sealapi as seal
import zstandard
from numpy.typing import NDArray

from crypto.errors import CryptoError
from crypto.he_parameters import Parameters

Words = NDArray[np.uint64]

_HEADER: Final = struct.Struct("<HBBBBHQ")  # magic, header size, version, compression, pad, size
_UNCOMPRESSED: Final = 0
_ZSTANDARD: Final = 2
_PLAIN_COUNT_AT: Final = 32
_PLAIN_WORDS_AT: Final = 32 + 8 + 8 + _HEADER.size + 8


class SealFailed(CryptoError):
    """SEAL refused parameters or wrote something other than was expected of its version."""


class Scheme:
    """One BFV instance with its objects' headers; threads may share it.

    Attributes:
        context: SEAL's context.
        data_shape: of a ciphertext's words, (2, data primes, N).

    Raises:
        SealFailed: SEAL does not take these parameters at 128-bit security.
    """

    def __init__(self, parameters: Parameters) -> None:
        self._primes: Final = np.array(parameters.key_primes, dtype=np.uint64)[:, None]
        settings = seal.EncryptionParameters(seal.SCHEME_TYPE.BFV)
        settings.set_poly_modulus_degree(parameters.degree)
        settings.set_coeff_modulus([seal.Modulus(prime) for prime in parameters.key_primes])
        settings.set_plain_modulus(seal.Modulus(1 << parameters.plain_bits))
        self.context = seal.SEALContext(settings, True, seal.SEC_LEVEL_TYPE.TC128)
        if not self.context.parameters_set():
            raise SealFailed(self.context.parameters_error_message())
        self._file: Final = Scratch()
        self._degree: Final = parameters.degree
        self.data_shape: Final = (2, len(parameters.data_primes), self._degree)
        self._key: Final = (2, len(parameters.key_primes), self._degree)
        public, zero = seal.PublicKey(), seal.Ciphertext()
        generator = seal.KeyGenerator(self.context)
        generator.create_public_key(public)
        seal.Encryptor(self.context, public).encrypt_zero(zero)
        self._version, body = self._file.saved(public)
        self._key_header: Final = body[: len(body) - 8 * int(np.prod(self._key))]
        body = self._file.saved(zero)[1]
        self._data_header: Final = body[: len(body) - 8 * int(np.prod(self.data_shape))]
        self._secret: Final = self._key[1:]
        body = self._file.saved_secret(generator.secret_key())
        self._secret_header: Final = body[: len(body) - 8 * int(np.prod(self._secret))]
        body = self._file.saved(seal.Plaintext(self._degree))[1]
        self._plain_header: Final = body[:_PLAIN_WORDS_AT]
        if len(body) != _PLAIN_WORDS_AT + 8 * self._degree:
            raise SealFailed(f"a plaintext of {len(body)} bytes")

    def public_key(self, words: Words) -> Any:
        """A public key from its two polynomials [2, key primes, N], each word below its prime."""
        return self._loaded(seal.PublicKey(), self._key_header, words, self._key)

    def secret_key(self, data: bytes | memoryview) -> Any:
        """A secret key from what secret_bytes gave.

        Raises:
            SealFailed: another length, or a word that is not below its prime.
        """
        if len(data) != 8 * int(np.prod(self._secret)):
            raise SealFailed(f"a secret key of {len(data)} bytes")
        words = np.frombuffer(data, dtype="<u8").reshape(self._secret)
        if not (words < self._primes).all():
            raise SealFailed("a word of a secret key is not below its prime")
        key = seal.SecretKey()
        self._file.load_secret(key, self.context, self._version, self._secret_header, words)
        return key

    def secret_bytes(self, key: Any) -> bytes:
        """The words [key primes, N] of a secret key, little-endian."""
        return self._file.saved_secret(key)[len(self._secret_header) :]

    def ciphertext(self, words: Words) -> Any:
        """A ciphertext from its two polynomials [2, data primes, N]."""
        return self._loaded(seal.Ciphertext(), self._data_header, words, self.data_shape)

    def plaintext(self, coefficients: Words) -> Any:
        """A plaintext from its coefficients [N], each below t."""
        return self._loaded(seal.Plaintext(), self._plain_header, coefficients, (self._degree,))

    def key_words(self, key: Any) -> Words:
        """The two polynomials of a public key, [2, key primes, N]."""
        return _words(self._file.saved(key)[1], len(self._key_header), self._key)

    def ciphertext_words(self, ciphertext: Any) -> Words:
        """The two polynomials of a ciphertext, [2, data primes, N]."""
        return _words(self._file.saved(ciphertext)[1], len(self._data_header), self.data_shape)

    def coefficients(self, plaintext: Any) -> Words:
        """The coefficients of a plaintext, [N]; SEAL leaves out leading zeros."""
        body = self._file.saved(plaintext)[1]
        (count,) = struct.unpack_from("<Q", body, _PLAIN_COUNT_AT)
        found = np.zeros(self._degree, dtype=np.uint64)
        found[:count] = np.frombuffer(body, dtype="<u8", count=count, offset=_PLAIN_WORDS_AT)
        return found

    def _loaded(self, target: Any, header: bytes, words: Words, shape: tuple[int, ...]) -> Any:
        if words.shape != shape:
            raise SealFailed(f"words of shape {words.shape}; allowed: {shape}")
        self._file.load(target, self.context, self._version, header, words)
        return target


class Encryptor:
    """Encrypts under somebody's public key, [2, key primes, N] words; one thread at a time."""

    def __init__(self, scheme: Scheme, key: Words) -> None:
        self._scheme = scheme
        self._encryptor = seal.Encryptor(scheme.context, scheme.public_key(key))
        self._ciphertext = seal.Ciphertext()

    def encrypt(self, coefficients: Words) -> Words:
        """A fresh ciphertext [2, data primes, N] of coefficients [N], each below t."""
        self._encryptor.encrypt(self._scheme.plaintext(coefficients), self._ciphertext)
        return self._scheme.ciphertext_words(self._ciphertext)

    def encrypt_all(self, coefficients: Words) -> Words:
        """Fresh ciphertexts [rows, 2, data primes, N] of coefficients [rows, N]."""
        found = np.empty((len(coefficients), *self._scheme.data_shape), dtype=np.uint64)
        for ciphertext, row in zip(found, coefficients, strict=True):
            ciphertext[:] = self.encrypt(row)
        return found


class SecretKey:
    """A secret key in SEAL's memory; it leaves it through `reveal` alone.

    Args:
        scheme: whose key it is.
        key: SEAL's object.
    """

    def __init__(self, scheme: Scheme, key: Any) -> None:
        self._scheme = scheme
        self._secret: Any = key
        self._decryptor: Any = seal.Decryptor(scheme.context, key)

    @classmethod
    def from_bytes(cls, scheme: Scheme, data: bytes | memoryview) -> SecretKey:
        """The key that `reveal` gave.

        Raises:
            SealFailed: the bytes are no key of this scheme.
        """
        return cls(scheme, scheme.secret_key(data))

    def __repr__(self) -> str:
        return f"{type(self).__name__}(redacted)"

    def reveal(self) -> bytes:
        """The key in clear, for a saved state; the name marks every place that takes it out.

        Raises:
            SealFailed: the key was erased.
        """
        if self._secret is None:
            raise SealFailed("the key was erased")
        return self._scheme.secret_bytes(self._secret)

    def erase(self) -> None:
        """Let the secret key go, whoever still holds this object: nothing decrypts any more."""
        self._decryptor = self._secret = None

    def decrypt(self, words: Words) -> tuple[Words, int]:
        """The coefficients [N] of a ciphertext [2, data primes, N], and its noise budget in bits.

        A budget of 0 means that the coefficients may not be those of the messages.

        Raises:
            SealFailed: the key was erased.
        """
        if self._decryptor is None:
            raise SealFailed("the key was erased")
        ciphertext, found = self._scheme.ciphertext(words), seal.Plaintext()
        budget: int = self._decryptor.invariant_noise_budget(ciphertext)
        self._decryptor.decrypt(ciphertext, found)
        return self._scheme.coefficients(found), budget


class KeyPair(SecretKey):
    """A fresh key pair.

    Attributes:
        public: the public key, [2, key primes, N] words.
    """

    def __init__(self, scheme: Scheme) -> None:
        generator = seal.KeyGenerator(scheme.context)
        key = seal.PublicKey()
        generator.create_public_key(key)
        super().__init__(scheme, generator.secret_key())
        self.public: Final = scheme.key_words(key)


class Rounder:
    """Reads a plaintext out of c0 + c1 s, whoever computed it: no key is needed for that.

    To SEAL it is a ciphertext (x, 0), which decrypts to the same under every key.
    """

    def __init__(self, scheme: Scheme) -> None:
        self._scheme = scheme
        secret = seal.KeyGenerator(scheme.context).secret_key()
        self._decryptor = seal.Decryptor(scheme.context, secret)

    def round(self, words: Words) -> Words:
        """The coefficients [N] of the plaintext whose scaled form, with noise, is [primes, N]."""
        found = seal.Plaintext()
        pair = np.stack([words, np.zeros_like(words)])
        self._decryptor.decrypt(self._scheme.ciphertext(pair), found)
        return self._scheme.coefficients(found)


@lru_cache(maxsize=4)
def scheme_for(parameters: Parameters) -> Scheme:
    """The scheme of these parameters; it holds no secret and takes 20 ms to make."""
    return Scheme(parameters)


class Scratch:
    """An anonymous file in memory, since the binding reads and writes files alone.

    One object at a time, and a file of its own in every process: what another thread or a forked
    process wrote must never be read as this one's ciphertext.
    """

    def __init__(self) -> None:
        self._open()
        _SCRATCHES.add(self)

    def load(self, target: Any, context: Any, version: bytes, header: bytes, words: Words) -> None:
        """Let SEAL read an object from the header of one like it that it saved, and words."""
        with self._lock:
            self._load(target, context, version, header, words)

    def load_secret(
        self, target: Any, context: Any, version: bytes, header: bytes, words: Words
    ) -> None:
        """The same for a secret key, which is overwritten in the file."""
        with self._lock:
            try:
                self._load(target, context, version, header, words)
            finally:
                self._overwrite()

    def saved(self, thing: Any) -> tuple[bytes, bytes]:
        """What SEAL writes for an object of this process: its header, and the body in full."""
        with self._lock:
            thing.save(self._path)
            data = self._content()
        return _unpacked(data)

    def saved_secret(self, thing: Any) -> bytes:
        """The body that SEAL writes for a secret key, which is overwritten in the file."""
        with self._lock:
            try:
                thing.save(self._path)
                data = self._content()
            finally:
                self._overwrite()
        return _unpacked(data)[1]

    def _load(self, target: Any, context: Any, version: bytes, header: bytes, words: Words) -> None:
        data = np.ascontiguousarray(words, dtype="<u8").data.cast("B")
        size = _HEADER.size + len(header) + len(data)
        magic, header_size, major, minor, *_ = _HEADER.unpack(version)
        outer = _HEADER.pack(magic, header_size, major, minor, _UNCOMPRESSED, 0, size)
        os.ftruncate(self._fd, 0)
        os.pwritev(self._fd, (outer, header, data), 0)
        target.load(context, self._path)

    def _content(self) -> bytes:
        return os.pread(self._fd, os.fstat(self._fd).st_size, 0)

    def _overwrite(self) -> None:
        os.pwrite(self._fd, bytes(os.fstat(self._fd).st_size), 0)

    def _open(self) -> None:
        self._lock = threading.Lock()
        self._fd = os.memfd_create("fedmeta-seal", os.MFD_CLOEXEC)
        self._path = f"/proc/self/fd/{self._fd}"
        self._close = weakref.finalize(self, os.close, self._fd)

    def reopen(self) -> None:
        """Leave the parent its file and lock; called in a forked child, before it has threads."""
        self._close()
        self._open()


_SCRATCHES: Final[weakref.WeakSet[Scratch]] = weakref.WeakSet()


def _reopen_all() -> None:
    for scratch in list(_SCRATCHES):
        scratch.reopen()


os.register_at_fork(after_in_child=_reopen_all)


def _words(body: bytes, start: int, shape: tuple[int, ...]) -> Words:
    return np.frombuffer(body, dtype="<u8", offset=start).reshape(shape)


def _unpacked(data: bytes) -> tuple[bytes, bytes]:
    """Header and body in full of what SEAL wrote."""
    header, body = data[: _HEADER.size], memoryview(data)[_HEADER.size :]
    *_, compression, _, size = _HEADER.unpack(header)
    if size != len(data) or compression not in (_UNCOMPRESSED, _ZSTANDARD):
        raise SealFailed(f"an object of {len(data)} bytes with compression {compression}")
    if compression == _UNCOMPRESSED:
        return header, bytes(body)
    return header, zstandard.ZstdDecompressor().decompressobj().decompress(body)
