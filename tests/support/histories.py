"""Histories of a model: every one of up to so many faults, or one by a seed.

A model asks `Choices` wherever something may go wrong. Choice 0 is that nothing does.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Choice:
    """What was chosen somewhere, and from what."""

    where: str
    options: tuple[str, ...]
    taken: int


class Choices:
    """Takes the choices of a list, and 0 after its end; keeps what there was to choose from."""

    def __init__(self, given: Sequence[int], pick: Callable[[int], int] = lambda _: 0) -> None:
        self.given, self.pick = list(given), pick
        self.seen: list[Choice] = []

    def __call__(self, where: str, *options: str) -> str:
        at = len(self.seen)
        taken = self.given[at] if at < len(self.given) else self.pick(len(options))
        self.seen.append(Choice(where, options, taken))
        return options[taken]

    def __str__(self) -> str:
        wrong = [f"{c.where}: {c.options[c.taken]}" for c in self.seen if c.taken]
        return "; ".join(wrong) or "nothing goes wrong"


def histories(play: Callable[[Choices], Any], faults: int, kinds: str = "") -> Iterator[Choices]:
    """Play every history of up to so many faults, and yield each after it was played.

    Args:
        play: Plays one.
        faults: At most how many.
        kinds: Only faults in which this pattern is found: ``<who> at <call>: <what>``.
    """
    todo: list[list[int]] = [[]]
    while todo:
        choices = Choices(todo.pop())
        play(choices)
        yield choices
        taken = [each.taken for each in choices.seen]
        if sum(map(bool, taken)) < faults:
            todo += [
                [*taken[:at], other]
                for at in range(len(choices.given), len(taken))
                for other, name in enumerate(choices.seen[at].options)
                if other and re.search(kinds, f"{choices.seen[at].where}: {name}")
            ]


def random_history(seed: int, likely: float) -> Choices:
    """Return choices of which each goes wrong with some probability."""
    dice = random.Random(seed)
    return Choices([], lambda options: dice.randrange(options) if dice.random() < likely else 0)
