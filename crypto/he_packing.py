"""Vectors as plaintext coefficients: several values in each, as one integer in base 2^lane.

Value i of a vector stands in ciphertext i // (N * lanes), lane (i // N) % lanes, coefficient i % N.
A coefficient is the sum of v_j * 2^(lane*j) mod t over its lanes, with negative v_j as they are:
borrows between lanes undo themselves in the sum, so that a sum of coefficients is the coefficient
of the sums, and reads back exactly whenever each sum lies in [-2^(lane-1), 2^(lane-1) - 1].
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from crypto.errors import Malformed
from crypto.he_parameters import Parameters


def to_coefficients(vector: NDArray[np.int64], parameters: Parameters) -> NDArray[np.uint64]:
    """Coefficients [ciphertexts, N] of a vector [length]; the end is filled with zeros."""
    found = np.zeros((parameters.ciphertexts, parameters.degree), dtype=np.uint64)
    digits = np.ascontiguousarray(vector, dtype=np.int64).view(np.uint64)
    for at, low in enumerate(range(0, vector.size, parameters.degree)):
        ciphertext, j = divmod(at, parameters.lanes)
        part = digits[low : low + parameters.degree]
        # modulo 2^64, of which t is a divisor
        found[ciphertext, : part.size] += part << np.uint64(parameters.lane * j)
    found &= np.uint64((1 << parameters.plain_bits) - 1)
    return found


def from_coefficients(
    coefficients: NDArray[np.uint64], parameters: Parameters, length: int
) -> NDArray[np.int64]:
    """The vector [length] in coefficients [ciphertexts, N].

    Raises:
        Malformed: something other than zeros stands behind the vector.
    """
    lanes, lane = parameters.lanes, parameters.lane
    half = 1 << (lane - 1)
    bias = sum(half << (lane * j) for j in range(lanes))
    raised = coefficients + np.uint64(bias)
    digits = np.empty((parameters.ciphertexts, lanes, parameters.degree), dtype=np.int64)
    for j in range(lanes):
        digit = (raised >> np.uint64(lane * j)) & np.uint64((1 << lane) - 1)
        digits[:, j] = digit.astype(np.int64) - half
    flat = digits.reshape(-1)
    if flat[length:].any():
        raise Malformed("something stands behind the end of the sum")
    return flat[:length]
