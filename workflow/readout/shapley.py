"""Shapley values: a coalition's worth divided among its players by what each adds, over all orders in which they come.

A game gives the worth of coalitions, bool [C, players], as numbers [C]; the empty coalition is worth nothing, and is
not asked for. The values of all players add up to the worth of all together (Shapley 1953).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import stats

Game = Callable[[np.ndarray], np.ndarray]

# ASSUME: the error is looked at after every twenty pairs of orders; that of a few is too small by luck too often.
BLOCK = 20
CONFIDENCE = 0.95
"""Of the intervals of values."""
# ASSUME: a hundredth of the gap is the smallest loss, and the smallest share beyond it, that counts as one.
SMALLEST = 0.01


@dataclass(frozen=True)
class Shares:
    """What each player has in a game.

    value: the Shapley values [players]; standard_error: that of each [players], which `permutations` random orders
    leave; alone: the worth of each player by itself [players]; whole: that of all together.
    """

    value: np.ndarray
    standard_error: np.ndarray
    alone: np.ndarray
    whole: float
    permutations: int

    def interval(self) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper end [players] of the interval of each value by Student's t, over pairs of orders."""
        half = stats.t.ppf((1 + CONFIDENCE) / 2, self.permutations // 2 - 1) * self.standard_error
        return self.value - half, self.value + half

    def hidden(self) -> np.ndarray:
        """Which players have a share without a loss of their own, bool [players].

        Alone a player is worth less than `SMALLEST` in either direction, and the whole interval of its value lies
        above that worth by more than `SMALLEST`: others make up for it where it alone is gone. What little a player is
        worth alone is counted against it, or noise that adds up would pass for a share.
        """
        return (np.abs(self.alone) < SMALLEST) & (self.interval()[0] > np.abs(self.alone) + SMALLEST)


def _remembered(game: Game) -> Game:
    """The same game, which is asked for no coalition twice, nor for the empty one."""
    known: dict[bytes, float] = {}

    def worth(coalitions: np.ndarray) -> np.ndarray:
        # In eight players a byte: two lists of players are equal where these are.
        keys = [row.tobytes() for row in np.packbits(coalitions, axis=1)]
        new = {key: i for i, key in enumerate(keys) if key not in known}
        if new:
            chosen = coalitions[list(new.values())]
            filled = chosen.any(1)
            found = np.zeros(len(chosen))
            if filled.any():
                found[filled] = game(chosen[filled])
            known.update(zip(new, found.tolist(), strict=True))
        return np.array([known[key] for key in keys])

    return worth


def _added(worth: Game, orders: np.ndarray) -> np.ndarray:
    """What each player adds to those before it, float64 [orders, players]; orders: int [orders, players]."""
    count, players = orders.shape
    # After each step [orders, steps, players]: the players whose place in the order is not behind it.
    place = np.argsort(orders, axis=1)
    reached = place[:, None, :] <= np.arange(players)[:, None]
    values = worth(reached.reshape(-1, players)).reshape(count, players)
    steps = np.diff(values, axis=1, prepend=0.0)
    return np.take_along_axis(steps, place, axis=1)


def estimate(game: Game, players: int, *, permutations: int, error: float, generator: np.random.Generator) -> Shares:
    """Shapley values from random orders of the players (Castro et al. 2009), at most `permutations`, at least four.

    An order and its reverse count as one draw, since what two players do together is shared evenly by the two; the
    standard error is over such pairs. It ends when the largest of a player is at most `error`. In every order what the
    players add sums to the worth of all, so the values do exactly.
    """
    most = permutations // 2
    if most < 2:
        raise ValueError(f"{permutations} permutations have no standard error; there must be at least four")
    worth = _remembered(game)
    drawn = np.empty((0, players))
    while True:
        count = min(BLOCK, most - len(drawn))
        orders = np.stack([generator.permutation(players) for _ in range(count)])
        both = _added(worth, np.concatenate([orders, orders[:, ::-1]]))
        drawn = np.concatenate([drawn, (both[:count] + both[count:]) / 2])
        standard_error = drawn.std(0, ddof=1) / math.sqrt(len(drawn))
        if len(drawn) == most or standard_error.max() <= error:
            break
    alone = worth(np.eye(players, dtype=bool))
    whole = float(worth(np.ones((1, players), bool))[0])
    return Shares(drawn.mean(0), standard_error, alone, whole, 2 * len(drawn))


def exact(game: Game, players: int) -> np.ndarray:
    """Shapley values [players] by their definition, over all coalitions: for few players."""
    everyone = 1 << np.arange(players)
    coalitions = (np.arange(2**players)[:, None] & everyone) > 0
    worth = np.concatenate([[0.0], game(coalitions[1:])])
    values = np.zeros(players)
    for i in range(players):
        without = np.flatnonzero(~coalitions[:, i])
        sizes = coalitions[without].sum(1)
        orders = np.array([math.factorial(s) * math.factorial(players - s - 1) for s in sizes], float)
        values[i] = (orders * (worth[without | everyone[i]] - worth[without])).sum() / math.factorial(players)
    return values
