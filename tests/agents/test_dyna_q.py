"""Dyna-Q: what it proposes, remembers and never tries again."""

import numpy as np

from blockqnn.agents import DynaQ, RandomWalk
from blockqnn.space import Block, Space

TWO = Block.parse("(1,1,3,0,0)(2,7,0,0,0)")
POOL = Block.parse("(1,2,3,0,0)(2,7,0,0,0)")


def rng(seed=0):
    return np.random.default_rng(seed)


def kernels(block):
    """How many layers of each kernel and kind: what some reward may depend on."""
    codes = [(layer.op, layer.kernel) for layer in block.layers]
    return np.array([codes.count((1, 1)), codes.count((1, 3)), codes.count((2, 3)), len(codes)])


class TestDynaQ:
    def test_it_finds_what_is_rewarded_in_fewer_trials_than_random_walks(self):
        """A 3x3 convolution is worth 10 points, and every layer costs 1: four of them are best."""

        def score(block):
            counts = kernels(block)
            return float(50 + 10 * min(counts[1], 4) - counts[3])

        def best(agent):
            draws, found = rng(1), []
            for iteration in range(8):
                epsilon = 1.0 if iteration == 0 else 0.0
                blocks = [agent.propose(epsilon, draws, {b.key for b in found}) for _ in range(8)]
                agent.learn_from([(block, score(block)) for block in blocks], draws)
                found += blocks
            return max(map(score, found))

        assert best(DynaQ(Space(8), kernels, imagined=128)) >= 84.0  # 85 is the most
        assert best(RandomWalk(Space(8))) < 80.0

    def test_it_names_no_block_twice_while_there_are_others(self):
        space = Space(3)
        agent, draws, named = DynaQ(space, kernels, imagined=32), rng(), []
        for _ in range(10):  # proposed, and in training: nothing of them is known yet
            named.append(agent.propose(0.0, draws, {block.key for block in named}))
        assert len({block.key for block in named}) == 10
        agent.learn_from([(block, float(place)) for place, block in enumerate(named)], draws)
        later = []
        for _ in range(20):
            later.append(agent.propose(0.0, draws, {block.key for block in later}))
        assert len({block.key for block in named + later}) == 30

    def test_a_space_that_is_used_up_does_not_stop_it(self):
        agent, draws = DynaQ(Space(2), kernels, imagined=8), rng()
        blocks = [Block.parse(f"{layer}(2,7,0,0,0)") for layer in Space(2).next_layers(1)[:-1]]
        blocks.append(Block.parse("(1,7,0,0,0)"))
        agent.learn_from([(block, 50.0) for block in blocks], draws)
        assert agent.propose(0.0, draws) in blocks

    def test_only_the_order_of_rewards_counts(self):
        def proposals(scale):
            agent, draws = DynaQ(Space(6), kernels, imagined=32), rng()
            blocks = [Space(6).sample(rng(seed)) for seed in range(12)]
            agent.learn_from([(b, scale(len(b.layers))) for b in blocks], draws)
            return [agent.propose(0.0, draws) for _ in range(5)]

        assert proposals(float) == proposals(lambda length: -1e6 / length**3)

    def test_what_went_wrong_again_is_remembered_at_its_best(self):
        def proposals(*later):
            agent = DynaQ(Space(6), kernels, imagined=64)
            blocks = [Space(6).sample(rng(seed)) for seed in range(12)]
            rewards = [float(len(block.layers)) for block in blocks]
            agent.learn_from([(TWO, 90.0), *zip(blocks, rewards, strict=True)], rng())
            for reward in later:
                agent.learn_from([(TWO, reward)], rng())
            return [agent.propose(0.0, rng(seed)) for seed in range(9)]

        assert proposals(10.0) == proposals()
