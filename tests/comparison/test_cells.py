"""Tables of cells as spaces: every agent of a search searches them, too."""

import itertools

import numpy as np
import pytest

from blockqnn.agents import build_agent
from blockqnn.settings import DynaQSettings, EvolutionSettings, QLearningSettings, RandomSettings
from evaluation.comparison.cells import Cell, CellSpace, Choice

SPACE = CellSpace((3, 2, 4))


def rng(seed=0):
    return np.random.default_rng(seed)


def test_choices_are_made_in_order_until_none_is_left():
    made = []
    for count in (3, 2, 4):
        offered = SPACE.choices(made)
        assert offered == tuple(Choice(len(made) + 1, option) for option in range(count))
        made.append(offered[-1])
    assert SPACE.choices(made) == ()
    assert SPACE.design(made).key == "2.1.3"
    with pytest.raises(ValueError, match="no choice at 4"):
        SPACE.next_layers(4)


def test_a_sample_is_any_cell_equally_often():
    draws = rng()
    keys = [SPACE.sample(draws).key for _ in range(2400)]
    counts = np.unique(keys, return_counts=True)[1]
    assert len(counts) == 24
    assert 60 < counts.min() and counts.max() < 140


def test_a_mutation_changes_one_choice():
    draws, cell, seen = rng(), SPACE.cell((0, 0, 0)), set()
    for _ in range(300):
        other = SPACE.mutate(cell, draws)
        SPACE.check(other)
        assert sum(a != b for a, b in zip(cell.layers, other.layers, strict=True)) == 1
        seen.add(other.key)
        cell = other
    assert len(seen) == 24
    alone = CellSpace((1, 1))
    assert alone.mutate(alone.cell((0, 0)), draws) == alone.cell((0, 0))


def test_every_option_has_its_place_in_the_vector():
    assert SPACE.encode(SPACE.cell((1, 0, 3))).tolist() == [0, 1, 0, 1, 0, 0, 0, 0, 1]


@pytest.mark.parametrize("cell", [(3, 0, 0), (0, 0), (0, 0, 0, 0)])
def test_cells_of_other_spaces_are_refused(cell):
    with pytest.raises(ValueError, match="is no cell with"):
        SPACE.check(Cell(tuple(Choice(place, o) for place, o in enumerate(cell, start=1))))


@pytest.mark.parametrize(
    "settings",
    [
        QLearningSettings(learning_rate=0.2),
        DynaQSettings(imagined=64),
        EvolutionSettings(population=10, tournament=5),
    ],
    ids=lambda settings: settings.kind,
)
def test_agents_find_better_cells_than_random_walks(settings):
    """A cell is worth how many of its six choices are right, the first two only together."""
    space = CellSpace((4,) * 6)

    def score(cell):
        right = [choice.option == 3 for choice in cell.layers]
        return 10.0 * (2 * (right[0] and right[1]) + sum(right[2:]))

    def last_mean(settings):
        agent, draws, rewards, taken = (
            build_agent(space, settings, 10, space.encode),
            rng(),
            [],
            set(),
        )
        for iteration in range(20):
            epsilon = 1.0 if iteration < 5 else 0.1
            cells = []
            for _ in range(10):
                cells.append(agent.propose(epsilon, draws, taken))
                taken.add(cells[-1].key)
            agent.learn_from([(cell, score(cell)) for cell in cells], draws)
            rewards.append(np.mean([score(cell) for cell in cells]))
        return np.mean(rewards[10:])

    assert last_mean(settings) > last_mean(RandomSettings()) + 3


def test_the_order_of_all_cells_is_that_of_counting():
    cells = [SPACE.cell(options) for options in itertools.product(range(3), range(2), range(4))]
    assert len({cell.key for cell in cells}) == 24
