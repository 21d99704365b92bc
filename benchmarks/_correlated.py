"""Noise that is correlated over rounds: what it can gain, and what it cannot.

A server that is linear in the sums (sgd, momentum, averaging) is a matrix: row t of A tells how
much of the sums x_1 ... x_T is in what it has after round t. Factorise A = B C with C lower
triangular, release C x + z with independent noise z of equal variance, and compute B (C x + z) from
it: the server gets A x + A C^-1 z, whose noise C^-1 z is correlated over rounds (Denisov et al.
2022, arXiv 2202.08312; Choquette-Choo et al. 2023, arXiv 2306.08153).

How far one unit moves C x in L2 norm, if it takes part in the rounds P with vectors in a ball of
radius 1, is

    sup { ||C_P G||_F : G with rows g_t, t in P, |g_t| <= 1 }  <=  sqrt(sum over P x P of |C^T C|)

with equality where no entry of C^T C is negative, since then all vectors of the unit may as well be
the same.

If a unit is in *every* round, no C is better than a diagonal one. Let a_t be column t of A. For
G with rows a_t / |a_t|, Cauchy and Schwarz give, whatever C is,

    sum_t |a_t| = tr(A G) = tr(A C^-1 . C G) <= ||A C^-1||_F ||C G||_F

and C = diag(sqrt |a_t|) makes both factors on the right sqrt(sum_t |a_t|): independent noise, with
variance 1 / |a_t| in round t. (G has as many columns as A has rows; fewer coordinates than that
leave a unit less room than is accounted for.)

Noise is told for sensitivity 1 and mu = 1 of Gaussian differential privacy (Dong, Roth and Su
2019), so that any two strategies are compared at the same epsilon, whatever it is.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from secure_fedmeta.server_opt import ServerOptimiser

Matrix = NDArray[np.float64]
LINEAR = ("sgd", "momentum")
"""Servers that are linear in the sums."""


def workload(optimiser: ServerOptimiser, rounds: int) -> tuple[Matrix, Matrix]:
    """The server as a matrix, from what it does with one impulse in each round.

    Args:
        optimiser: one of LINEAR.
        rounds: T.

    Returns:
        The iterates `[T, T]`, lower triangular, and the released model `[1, T]`: how much of each
        round's sum is in them, in step sizes.
    """
    state = optimiser.init(torch.zeros(rounds, dtype=torch.float64))
    iterates = []
    for impulse in torch.eye(rounds, dtype=torch.float64):
        state = optimiser.update(state, impulse)
        iterates.append(state.params)
    released = state.average[None, :]
    return torch.stack(iterates).numpy() / -optimiser.lr, released.numpy() / -optimiser.lr


def sensitivity(strategy: Matrix, *, every: int = 1) -> float:
    """How far one unit moves C x at most, its vectors within radius 1.

    Args:
        strategy: C, `[T, T]`, lower triangular.
        every: a unit takes part in every so-manieth round, from any round on.
    """
    return float(_sensitivity(torch.from_numpy(strategy), every))


def noise_of(work: Matrix, strategy: Matrix, *, every: int = 1) -> float:
    """Root mean square over the rows of A of the noise in A x, for sensitivity 1 and mu = 1.

    Args:
        work: A, `[n, T]`.
        strategy: C, `[T, T]`, lower triangular.
        every: see `sensitivity`.
    """
    rows = np.linalg.solve(strategy.T, work.T)
    spread = float(np.sqrt(np.square(rows).sum() / len(work)))
    return spread * sensitivity(strategy, every=every)


def least_noise(work: Matrix) -> float:
    """What `noise_of` is never below, for any strategy, where units are in every round."""
    return float(np.linalg.norm(work, axis=0).sum() / np.sqrt(len(work)))


def schedule(work: Matrix) -> Matrix:
    """The strategy that reaches `least_noise`: diagonal, and hence without any correlation.

    Args:
        work: A, `[n, T]`, without a column of zeros.
    """
    return np.diag(np.sqrt(np.linalg.norm(work, axis=0)))


def square_root(rounds: int, bands: int) -> Matrix:
    """The square root of the matrix of prefix sums, cut off after so many diagonals: `[T, T]`.

    Fichtenberger, Henzinger and Upadhyay 2023 (arXiv 2202.11205): nearly the best for prefix sums
    if a unit takes part once.
    """
    terms = np.cumprod([1.0, *((2 * k - 1) / (2 * k) for k in range(1, bands))])
    return np.asarray(sum(np.diag(np.full(rounds - k, c), -k) for k, c in enumerate(terms)))


def searched(work: Matrix, *, bands: int, every: int = 1, steps: int = 100) -> Matrix:
    """A strategy of few bands with little noise in A x, found by descent from the square root.

    Args:
        work: A, `[n, T]`.
        bands: diagonals of C that may differ from 0, its main one included, at most T.
        every: see `sensitivity`.
        steps: of L-BFGS.
    """
    rounds = work.shape[1]
    a = torch.from_numpy(work)
    root = torch.from_numpy(square_root(rounds, bands))
    diagonal = root.diagonal().log().requires_grad_()
    below = root.tril(-1).requires_grad_()
    mask = torch.ones_like(root).tril(-1).triu(1 - bands)

    def strategy() -> Tensor:
        return torch.diag(diagonal.exp()) + below * mask

    def cost() -> Tensor:
        c = strategy()
        rows = torch.linalg.solve_triangular(c.T, a.T, upper=True)
        value = rows.square().sum().log() + 2.0 * _sensitivity(c, every).log()
        descent.zero_grad()
        value.backward()
        return value

    descent = torch.optim.LBFGS([diagonal, below], max_iter=steps, line_search_fn="strong_wolfe")
    descent.step(cost)
    return strategy().detach().numpy()


def _sensitivity(strategy: Tensor, every: int) -> Tensor:
    products = (strategy.T @ strategy).abs()
    moved = [products[first::every, first::every].sum() for first in range(every)]
    return torch.stack(moved).max().sqrt()
