"""Exact draws from unimodal distributions on the integers, a few nanoseconds each.

The integers around the mode are cut into strips of equal width, a power of two. A strip is chosen
by its integer weight in 2^32 (Walker's alias method), an integer of the strip uniformly, and kept
with probability p(k) / height of the strip: rejection under a staircase. The staircase is defined
by the integer weights, so that rounding them costs rejections but no exactness; and 98 times in
100 the first bits of a uniform number decide without p(k). Beyond the strips lie two tails, under
staircases whose steps halve, drawn bit by bit: the support is cut off nowhere.

P(k) is therefore proportional to p(k) but for the float64 error of log p(k): where that is at
most e(k), P(k) is off by a relative e(k) + E[e] + 2e-14 at most, the last for exp and for the
difference inside it. Everything random is a uniform bit string, compared with integers, or digit
by digit with a float64 number. Only chances below 2^-1022 are rounded absolutely.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from privacy.rng import SecureRandom

Ints = NDArray[np.int64]
LogWeight = Callable[[Ints], NDArray[np.float64]]
"""log p(k) up to a constant, for int64 [n]; -inf outside of the support."""

REACH: Final = 6.5
"""Spreads that the strips reach to on each side: a tail is asked for once in 10^9 draws."""
_COLUMN_BITS: Final = 10  # the tables of 1024 columns stay in the first-level cache
_CUT_BITS: Final = 32 - _COLUMN_BITS
_BLOCK: Final = 1 << 15  # draws at a time: the passes over one block find it in the cache


@dataclass(frozen=True, eq=False)
class StripSampler:
    """The tables of one distribution; made by `build`.

    A column c of the alias method has two choices: 2 c, its own strip, and 2 c + 1, its alias.

    Attributes:
        log_weight: log p up to a constant.
        low_bits: log2 of the width of a strip.
        cut: uint32 [columns]; below it, in units of 2^-22, a column's own strip is chosen.
        strip: int64 [choices]; the number of the strip, the two tails being the last two.
        first: int64 [choices]; the first integer of the strip.
        sure: uint32 [choices]; acceptance bits below it accept every integer of the strip.
        log_height: float64 [strips]; log p(k) is at most this in the strip.
        tails: beyond the last strip and before the first.
    """

    log_weight: LogWeight
    low_bits: int
    cut: NDArray[np.uint32]
    strip: Ints
    first: Ints
    sure: NDArray[np.uint32]
    log_height: NDArray[np.float64]
    tails: tuple[_Tail, _Tail]

    @classmethod
    def build(cls, log_weight: LogWeight, *, spread: float, reach: float = REACH) -> Self:
        """Tables for a distribution that rises up to its mode 0 and falls from there.

        Each tail must fall at least as fast as a geometric series: p(k + w) / p(k) does not
        grow with the distance from the mode. Log-concave distributions fulfil both.

        Args:
            log_weight: log p(k) up to a constant.
            spread: about the standard deviation, below 2^30. It decides on cost, not on P(k).
            reach: spreads that the strips reach to on each side, besides 16 integers.
        """
        span = reach * spread + 16.0
        low_bits = max(0, math.ceil(math.log2(span / (2 ** (_COLUMN_BITS - 1) - 1))))
        width = 1 << low_bits
        edge = math.ceil(span / width) * width
        first = np.arange(-edge, edge, width, dtype=np.int64)
        ends = np.stack([log_weight(first), log_weight(first + (width - 1))])
        possible = ends.max(axis=0) > -np.inf
        first, ends = first[possible], ends[:, possible]
        # The mode begins a strip, so that p is monotone in every strip.
        tails = (
            _Tail.beyond(edge, side=1, log_weight=log_weight),
            _Tail.beyond(-edge - 1, side=-1, log_weight=log_weight),
        )
        masses = [*(ends.max(axis=0) + low_bits * math.log(2.0)), *(t.log_mass for t in tails)]
        weights, log_unit = _integer_weights(masses)
        with np.errstate(divide="ignore"):
            log_height = np.log(weights) + (log_unit - low_bits * math.log(2.0))
        least = np.exp(ends.min(axis=0) - log_height[:-2])
        sure = np.zeros(len(weights), dtype=np.uint32)
        # One unit below the least acceptance is far more than the rounding of exp and log.
        sure[:-2] = np.maximum(np.floor(least * 2.0 ** (32 - low_bits)) - 1.0, 0.0)
        cut, strip = _alias(weights)
        return cls(
            log_weight=log_weight,
            low_bits=low_bits,
            cut=cut,
            strip=strip,
            first=np.append(first, [0, 0])[strip],
            sure=sure[strip],
            log_height=log_height,
            tails=tails,
        )

    def draw(self, size: int, rng: SecureRandom) -> Ints:
        """Independent draws: int64 [size]."""
        drawn = np.empty(size, dtype=np.int64)
        unsure = [
            self._propose(drawn[low : low + _BLOCK], low, rng) for low in range(0, size, _BLOCK)
        ]
        if unsure:
            at, strip, lead = (np.concatenate(parts) for parts in zip(*unsure, strict=True))
            drawn[at], kept = self._decide(drawn[at], strip, lead, rng)
            rejected = at[~kept]
            if rejected.size:
                drawn[rejected] = self.draw(rejected.size, rng)
        return drawn

    def _propose(
        self, drawn: Ints, start: int, rng: SecureRandom
    ) -> tuple[Ints, Ints, NDArray[np.uint32]]:
        """Fill with proposals; where the acceptance bits leave it open: index, strip and bits."""
        words = rng.words(2 * drawn.size)
        pick, spot = words[: drawn.size], words[drawn.size :]
        choice = (pick >> np.uint32(_CUT_BITS)).astype(np.int64)
        np.bitwise_and(pick, np.uint32((1 << _CUT_BITS) - 1), out=pick)
        aliased = pick >= self.cut.take(choice)
        choice *= 2
        choice += aliased
        # "clip" is numpy's fastest: every choice is in range.
        np.take(self.first, choice, out=drawn, mode="clip")
        drawn += spot & np.uint32((1 << self.low_bits) - 1)
        np.right_shift(spot, np.uint32(self.low_bits), out=spot)
        unsure = np.flatnonzero(spot >= self.sure.take(choice))
        return unsure + start, self.strip[choice[unsure]], spot[unsure]

    def _decide(
        self, drawn: Ints, strip: Ints, lead: NDArray[np.uint32], rng: SecureRandom
    ) -> tuple[Ints, NDArray[np.bool_]]:
        """Proposals, those of tails put in, and which of them are kept."""
        chance = np.exp(self.log_weight(drawn) - self.log_height[strip])
        kept = _below(chance, lead, 32 - self.low_bits, rng)
        beyond = strip - (len(self.log_height) - 2)
        for index in np.flatnonzero(beyond >= 0):
            tail = self.tails[beyond[index]]
            log_mass = float(self.log_height[strip[index]]) + self.low_bits * math.log(2.0)
            drawn[index], kept[index] = tail.draw(log_mass, self.log_weight, rng)
        return drawn, kept


@dataclass(frozen=True)
class _Tail:
    """All integers from `edge` on, away from the mode, under steps of which each is half as high.

    Attributes:
        edge: the first integer.
        side: 1 or -1.
        step_bits: log2 of the width of a step; p(k) falls to a half or less over a step.
        log_mass: log of what the staircase sums to, in the units of log_weight.
    """

    edge: int
    side: int
    step_bits: int
    log_mass: float

    @classmethod
    def beyond(cls, edge: int, *, side: int, log_weight: LogWeight) -> Self:
        bits = 0
        top, after = -np.inf, -np.inf
        while True:
            top, after = log_weight(np.array([edge, edge + side * (1 << bits)], dtype=np.int64))
            # A little below a half, for the rounding of log_weight.
            if top == -np.inf or after - top < -0.7:
                break
            bits += 1
        return cls(edge, side, bits, float(top) + (bits + 1) * math.log(2.0))

    def draw(self, log_mass: float, log_weight: LogWeight, rng: SecureRandom) -> tuple[int, bool]:
        """Propose an integer, and whether to keep it, under a staircase of this mass."""
        step = 0
        while True:
            word = int(rng.words(1)[0])
            step += 32 - word.bit_length()
            if word:
                break
        inside = int(rng.words(1)[0]) & ((1 << self.step_bits) - 1)
        value = self.edge + self.side * ((step << self.step_bits) + inside)
        log_height = log_mass - (self.step_bits + 1 + step) * math.log(2.0)
        chance = np.exp(log_weight(np.array([value], dtype=np.int64)) - log_height)
        return value, bool(_below(chance, rng.words(1), 32, rng)[0])


def _integer_weights(log_masses: list[float]) -> tuple[list[int], float]:
    """Integers that sum to 2^32, and the log of a unit such that weight * unit >= mass.

    What rounding leaves over goes to the largest. A mass of zero alone has the weight zero.
    """
    logs = np.array(log_masses)
    top = float(logs.max())
    total = float(np.exp(logs - top).sum())
    units = 2.0**32 - 2 * len(logs)
    log_unit = top + math.log(total / units)
    weights = [0 if log == -np.inf else int(np.exp(log - log_unit)) + 1 for log in logs]
    weights[int(logs.argmax())] += 2**32 - sum(weights)
    return weights, log_unit


def _alias(weights: list[int]) -> tuple[NDArray[np.uint32], Ints]:
    """Walker's alias method in integers (Vose 1991): the cuts, and the strip of each choice."""
    columns, share = 1 << _COLUMN_BITS, 1 << _CUT_BITS
    rest = weights + [0] * (columns - len(weights))
    alias = list(range(columns))
    poor = [c for c in range(columns) if rest[c] < share]
    rich = [c for c in range(columns) if rest[c] > share]
    while poor:
        column, giver = poor.pop(), rich[-1]
        alias[column] = giver
        rest[giver] -= share - rest[column]
        if rest[giver] <= share:
            rich.pop()
        if rest[giver] < share:
            poor.append(giver)
    own = np.minimum(np.arange(columns), len(weights) - 1)
    strip = np.stack([own, np.array(alias)], axis=1).reshape(-1)
    return np.minimum(rest, share).astype(np.uint32), strip


def _below(
    chance: NDArray[np.float64], lead: NDArray[np.uint32], bits: int, rng: SecureRandom
) -> NDArray[np.bool_]:
    """Is a uniform number in [0, 1) whose first `bits` bits are `lead` below `chance`? Exactly.

    Digit by digit: where the digits so far equal those of `chance`, more are drawn. The
    differences are exact, since a float64 number less its integer part is one.
    """
    rest = np.minimum(chance, 1.0) * 2.0**bits - lead
    below = rest >= 1.0
    tied = np.flatnonzero((rest > 0.0) & (rest < 1.0))
    while tied.size:
        rest[tied] = (rest[tied] - rng.fractions(tied.size)) * 2.0**53
        below[tied] = rest[tied] >= 1.0
        tied = tied[(rest[tied] > 0.0) & (rest[tied] < 1.0)]
    return below
