"""The rotation is orthogonal, reproducible, alike for every row, and makes vectors flat."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.linalg import hadamard

from privacy.rotate import (
    SATURATION,
    Rotation,
    block_size,
    random_signs,
    spread,
    walsh_hadamard,
)

SEED = b"public"


@pytest.mark.parametrize("width", [1, 2, 8, 64, 1024])
def test_the_transform_is_that_of_sylvester_s_matrix(width: int) -> None:
    rows = np.random.default_rng(width).standard_normal((3, width))
    expected = rows @ hadamard(width) / np.sqrt(width)
    np.testing.assert_allclose(walsh_hadamard(rows), expected, atol=1e-12)


@given(st.integers(1, 70), st.binary(max_size=8))
def test_a_rotation_is_orthogonal_for_every_length(parameters: int, seed: bytes) -> None:
    rotation = Rotation(parameters, seed)
    matrix = rotation.forward(np.eye(parameters))
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(parameters), atol=1e-12)
    np.testing.assert_allclose(rotation.backward(matrix), np.eye(parameters), atol=1e-12)


def test_inputs_are_left_alone() -> None:
    rows = np.random.default_rng(1).standard_normal((2, 48))
    before = rows.tobytes()
    rotation = Rotation(48, SEED)
    rotation.backward(rotation.forward(rows))
    walsh_hadamard(rows[:, :32])
    assert rows.tobytes() == before


@pytest.mark.parametrize("parameters", [33, 1000, 4096])
def test_a_row_is_rotated_alike_alone_and_in_company(parameters: int) -> None:
    """Otherwise one unit would move another one's rounding, which no bound covers."""
    rotation = Rotation(parameters, SEED)
    rows = np.random.default_rng(2).standard_normal((65, parameters))
    together = rotation.forward(rows)
    for index in (0, 1, 31, 32, 64):
        alone = rotation.forward(rows[index : index + 1])
        assert alone.tobytes() == together[index : index + 1].tobytes()
        assert rotation.forward(rows[index:])[0].tobytes() == together[index].tobytes()


def test_equal_seeds_give_equal_rotations_on_every_machine() -> None:
    signs = random_signs(4096, SEED)
    assert hashlib.sha256(signs.astype("<i1").tobytes()).hexdigest() == (
        "ff85b80d34b9c55173e98f003468fee0a9bbc91f74d16b74973ef0067860a9f6"
    )
    assert set(signs) == {-1.0, 1.0}
    assert not np.array_equal(signs, random_signs(4096, b"another"))
    # Two-sided, six standard errors: false alarm 2e-9 for another seed.
    assert abs(signs.sum()) < 6 * 64


@pytest.mark.parametrize("parameters", [32, 63, 64, 100, 1761, 4096])
@pytest.mark.parametrize("shape", ["one", "ends", "equal", "normal"])
def test_coordinates_of_a_rotated_vector_stay_within_the_spread(
    parameters: int, shape: str
) -> None:
    """Of 300 rotations two or more would pass the bound with probability below 5e-4."""
    vector = {
        "one": np.eye(parameters)[0],
        "ends": np.eye(parameters)[0] + np.eye(parameters)[-1],
        "equal": np.ones(parameters),
        "normal": np.random.default_rng(3).standard_normal(parameters),
    }[shape]
    vector = vector / np.linalg.norm(vector)
    largest = np.array(
        [
            np.abs(Rotation(parameters, bytes([k % 256, k // 256])).forward(vector[None])).max()
            for k in range(300)
        ]
    )
    assert (largest > spread(parameters)).sum() <= 1
    # The bound is not so wide that anything would pass.
    assert np.median(largest) > spread(parameters) / 7


def test_a_missing_second_pass_would_be_seen() -> None:
    """The last coordinates are beyond the first block; only the second pass reaches them."""
    parameters = 96
    vector = np.eye(parameters)[-1:]
    assert np.abs(Rotation(parameters, SEED).forward(vector)).max() < spread(parameters)
    rotation = Rotation(parameters, SEED)
    rotation._passes = rotation._passes[:1]
    assert np.abs(rotation.forward(vector)).max() == 1.0 > spread(parameters)


def test_blocks_hold_more_than_half_of_the_coordinates() -> None:
    for parameters in (1, 2, 3, 31, 32, 33, 1000, 2**20 - 1):
        assert parameters / 2 < block_size(parameters) <= parameters
    assert 0.0 < SATURATION <= 1e-4
