"""Proposals and replay updates a second of the Q-learning agent, and its part of a whole search.

    python -m benchmarks.speed.agent_speed [--quick]

The paper's search, its trainings aside: 178 iterations of 64 proposals and 64 replayed
trajectories, rewards supplied. Ours keeps a row of the actions tried after each layer and takes
the maximum over that; the alternative looks at every legal next action each time, as the formula
reads. Both draw the same random numbers and must end with the same blocks and the same values.
"""

import argparse
import time
from collections.abc import Callable, Sequence

from benchmarks import machine
from blockqnn.agents import EpsilonSchedule, QLearning
from blockqnn.seeds import generator
from blockqnn.space import Block, Layer, Space

BATCH = 64


class DenseQLearning(QLearning):
    """The same agent with a maximum over all next actions."""

    def _maximum(self, state: Layer, layers: Sequence[Layer]) -> float:
        return max(self.q(state, action) for action in self.space.choices(layers))

    def _best(self, state: Layer | None, actions: tuple[Layer, ...]) -> tuple[Layer, ...]:
        values = [self.q(state, action) for action in actions]
        best = max(values)
        return tuple(a for a, value in zip(actions, values, strict=True) if value == best)


def supplied_reward(block: Block) -> float:
    """Percent; any fixed function of the block that has something to learn."""
    return 40 + sum(layer.op == 1 for layer in block.layers) + len(block.leaves)


def search(agent: QLearning, iterations: int) -> tuple[list[Block], float, float]:
    """All proposals of a search, the seconds they took, and the seconds of learning."""
    schedule = EpsilonSchedule.paper()
    every = schedule.iterations // iterations  # a shorter search still goes from random to greedy
    blocks: list[Block] = []
    proposing = learning = 0.0
    for iteration in range(iterations):
        epsilon = schedule.at(iteration * every)
        begun = time.perf_counter()
        numbers = range(iteration * BATCH, (iteration + 1) * BATCH)
        fresh = [agent.propose(epsilon, generator(0, "proposal", number)) for number in numbers]
        between = time.perf_counter()
        finished = [(block, supplied_reward(block)) for block in fresh]
        agent.learn_from(finished, generator(0, "replay", iteration))
        proposing += between - begun
        learning += time.perf_counter() - between
        blocks += fresh
    return blocks, proposing, learning


def measure(
    make: Callable[..., QLearning], iterations: int
) -> tuple[list[Block], QLearning, float]:
    """Run one search and print its line."""
    agent = make(Space(23), replay=BATCH)
    blocks, proposing, learning = search(agent, iterations)
    count = len(blocks)
    print(
        f"{make.__name__}: {count / proposing:,.0f} proposals/s, {count / learning:,.0f} replay "
        f"updates/s, whole search {proposing + learning:.2f} s",
        flush=True,
    )
    return blocks, agent, proposing + learning


def main() -> None:
    """Print one line an agent, and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="12 iterations instead of 178")
    options = parser.parse_args()
    iterations = 12 if options.quick else EpsilonSchedule.paper().iterations
    print(
        f"agent: {machine.describe()}; {iterations * BATCH:,} proposals and replay updates",
        flush=True,
    )
    blocks, agent, ours = measure(QLearning, iterations)
    other_blocks, other_agent, dense = measure(DenseQLearning, iterations)
    if blocks != other_blocks or not same_values(agent, other_agent, blocks):
        raise SystemExit("the two agents differ: the comparison is void")
    print(
        f"ratio {dense / ours:.1f} over the maximum of all next actions; same blocks, same values"
    )


def same_values(one: QLearning, other: QLearning, blocks: list[Block]) -> bool:
    """Whether two agents value every action of these blocks alike."""
    return all(
        one.q(state, action) == other.q(state, action)
        for block in blocks
        for state, action in zip((None, *block.layers), block.layers, strict=False)
    )


if __name__ == "__main__":
    main()
