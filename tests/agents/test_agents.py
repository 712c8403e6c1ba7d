"""Agents: Q values by hand, exploration by count, evolution by property, no hidden state."""

import time
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blockqnn.agents import DynaQ, EpsilonSchedule, Evolution, QLearning, RandomWalk, build_agent
from blockqnn.settings import DynaQSettings, EvolutionSettings, QLearningSettings, RandomSettings
from blockqnn.space import V2, Block, Layer, Space

TWO = Block.parse("(1,1,3,0,0)(2,7,0,0,0)")
POOL = Block.parse("(1,2,3,0,0)(2,7,0,0,0)")
THREE = Block.parse("(1,4,0,0,0)(2,1,3,1,0)(3,7,0,0,0)")
SUM = Block.parse("(1,4,0,0,0)(2,1,3,1,0)(3,5,0,1,2)(4,7,0,0,0)")
SUM_SWAPPED = Block.parse("(1,4,0,0,0)(2,1,3,1,0)(3,5,0,2,1)(4,7,0,0,0)")


def rng(seed=0):
    return np.random.default_rng(seed)


def learner(max_index=23, **arguments):
    return QLearning(Space(max_index), learning_rate=0.1, **arguments)


def values(agent, block):
    """Q of every step of a block, first to last."""
    states = (None, *block.layers)
    return [agent.q(state, action) for state, action in zip(states, block.layers, strict=False)]


def first_layers(agent, epsilon, count, seed=0):
    draws = rng(seed)
    return Counter(agent.propose(epsilon, draws).layers[0] for _ in range(count))


class TestQValues:
    def test_one_pass_goes_backwards_with_the_shaped_reward(self):
        agent = learner()
        agent.learn(TWO, 80.0)
        # terminal: 0.9 * 0.5 + 0.1 * 0.8; first: 0.9 * 0.5 + 0.1 * (0.8 / 2 + 0.53)
        # (a forward pass would give the first step 0.54)
        assert values(agent, TWO) == pytest.approx([0.543, 0.53], abs=1e-12)

    def test_an_action_never_tried_counts_in_the_maximum(self):
        agent = learner()
        agent.learn(TWO, 80.0)
        agent.learn(TWO, 20.0)
        # terminal: 0.9 * 0.53 + 0.1 * 0.2 = 0.497, below the 0.5 of everything else after layer 1
        # first: 0.9 * 0.543 + 0.1 * (0.1 + 0.5)
        assert values(agent, TWO) == pytest.approx([0.5487, 0.497], abs=1e-12)

    def test_where_every_action_was_tried_the_initial_value_is_gone(self):
        agent = learner(max_index=2)  # after layer 1 only the terminal is left
        agent.learn(TWO, 0.0)
        assert values(agent, TWO) == pytest.approx([0.495, 0.45], abs=1e-12)

    def test_discount(self):
        agent = learner(discount=0.5)
        agent.learn(THREE, 60.0)
        # 0.45 + 0.1 * 0.6; 0.45 + 0.1 * (0.2 + 0.5 * 0.51); 0.45 + 0.1 * (0.2 + 0.5 * 0.5)
        assert values(agent, THREE) == pytest.approx([0.495, 0.4955, 0.51], abs=1e-12)

    def test_two_blocks_meet_in_a_shared_layer(self):
        agent = learner(initial_q=0.0)
        agent.learn(THREE, 60.0)
        # 0.06; 0.1 * (0.2 + 0.06) = 0.026; 0.1 * (0.2 + 0.026) = 0.0226
        assert values(agent, THREE) == pytest.approx([0.0226, 0.026, 0.06], abs=1e-12)
        short = Block.parse("(1,4,0,0,0)(2,7,0,0,0)")
        agent.learn(short, 90.0)
        # terminal 0.09; first 0.9 * 0.0226 + 0.1 * (0.45 + max(0.026, 0.09))
        assert values(agent, short) == pytest.approx([0.07434, 0.09], abs=1e-12)
        assert agent.q(THREE.layers[0], THREE.layers[1]) == pytest.approx(0.026, abs=1e-12)

    def test_the_empty_block_is_one_step_to_the_end(self):
        agent = learner()
        agent.learn(Block.parse("(1,7,0,0,0)"), 10.0)
        assert agent.q(None, Layer(1, 7, 0, 0, 0)) == pytest.approx(0.46, abs=1e-12)

    def test_penalties_can_make_a_reward_negative(self):
        agent = learner()
        agent.learn(TWO, -20.0)
        assert values(agent, TWO) == pytest.approx([0.49, 0.43], abs=1e-12)

    def test_operands_of_an_add_have_no_order(self):
        once, swapped = learner(), learner()
        once.learn(SUM, 80.0)
        once.learn(SUM, 40.0)
        swapped.learn(SUM, 80.0)
        swapped.learn(SUM_SWAPPED, 40.0)
        assert values(once, SUM) == values(swapped, SUM) == values(swapped, SUM_SWAPPED)
        # the add is the state, too, from which the terminal is reached
        # 0.9 * (0.45 + 0.08) + 0.1 * 0.4
        assert values(once, SUM)[3] == pytest.approx(0.517, abs=1e-12)

    def test_nothing_else_moves(self):
        agent = learner()
        agent.learn(TWO, 80.0)
        assert values(agent, POOL) == [0.5, 0.5]
        assert agent.q(None, Layer(1, 1, 5, 0, 0)) == 0.5

    def test_a_block_too_long_for_the_space_is_refused(self):
        with pytest.raises(ValueError, match="layer 3: more than 2 layers"):
            learner(max_index=2).learn(THREE, 50.0)


class TestExploration:
    def test_epsilon_one_is_a_uniform_walk_whatever_was_learned(self):
        agent = learner(max_index=3)
        for _ in range(50):
            agent.learn(TWO, 100.0)
        counts = first_layers(agent, 1.0, 1800)
        assert set(counts) == set(Space(3).next_layers(1))
        assert len(counts) == 9
        assert all(140 < count < 260 for count in counts.values())  # 200 expected, sd 13

    def test_epsilon_zero_takes_the_best(self):
        agent = learner()
        agent.learn(TWO, 80.0)
        draws = rng()
        assert {agent.propose(0.0, draws) for _ in range(50)} == {TWO}

    def test_ties_are_broken_at_random(self):
        agent = learner(max_index=2)
        agent.learn(TWO, 80.0)
        agent.learn(POOL, 80.0)
        counts = first_layers(agent, 0.0, 400)
        assert set(counts) == {TWO.layers[0], POOL.layers[0]}
        assert 150 < counts[TWO.layers[0]] < 250

    def test_a_bad_block_is_avoided_and_the_rest_is_tied(self):
        agent = learner(max_index=2)
        agent.learn(TWO, 0.0)
        counts = first_layers(agent, 0.0, 1600)
        assert set(counts) == set(Space(2).next_layers(1)) - {TWO.layers[0]}
        assert all(140 < count < 260 for count in counts.values())

    def test_epsilon_between(self):
        agent = learner(max_index=2)
        agent.learn(TWO, 80.0)
        share = first_layers(agent, 0.3, 3000)[TWO.layers[0]] / 3000
        assert share == pytest.approx(0.7 + 0.3 / 9, abs=0.03)

    def test_greedy_search_finds_what_is_rewarded(self):
        agent = learner(max_index=5, replay=64, batch=32)

        def score(block):
            return 50.0 + 10 * sum(layer[1:3] == (1, 3) for layer in block.layers)

        draws = rng(3)
        means = []
        for epsilon in [1.0] * 20 + [0.0] * 20:
            blocks = [agent.propose(epsilon, draws) for _ in range(32)]
            means.append(np.mean([score(block) for block in blocks]))
            agent.learn_from([(block, score(block)) for block in blocks], draws)
        assert np.mean(means[-5:]) > np.mean(means[:20]) + 15


class TestWidthLimit:
    """A space where what is legal depends on more than the last layer."""

    NARROW = Space(5, ((8, 3), (4, 0), (5, 0)), 1)
    FORK = Block.parse("(1,4,0,0,0)(2,8,3,1,0)(3,8,3,1,0)(4,5,0,2,3)(5,7,0,0,0)")

    def test_the_best_action_that_is_not_legal_here_is_not_taken(self):
        """After the chain's layer 3 the block may end; after the fork's two leaves are open."""
        agent = QLearning(self.NARROW, learning_rate=0.5)
        other = Block.parse("(1,4,0,0,0)(2,4,0,1,0)(3,8,3,1,0)(4,5,0,2,3)(5,7,0,0,0)")
        state, end = other.layers[2], Layer(4, 7, 0, 0, 0)
        agent._table[state] = {end: 0.9, other.layers[3]: 0.2}  # as another way to it had taught
        assert agent._best(state, self.NARROW.choices(other.layers[:3])) == (other.layers[3],)
        assert agent._maximum(state, list(other.layers[:3])) == 0.2
        chained = (*other.layers[:1], Layer(2, 4, 0, 1, 0), Layer(3, 8, 3, 2, 0))
        agent._table[chained[2]] = {end: 0.9}
        assert agent._maximum(chained[2], chained) == 0.9

    def test_an_action_never_tried_looks_average_only_where_it_is_legal(self):
        """The fork must be joined by its add: nothing else comes after its layer 3."""
        assert self.NARROW.choices(self.FORK.layers[:3]) == (self.FORK.layers[3],)
        agent = QLearning(self.NARROW, learning_rate=0.5)
        agent.learn(self.FORK, 0.0)
        agent.learn(self.FORK, 0.0)
        # terminal: 0.25, 0.125; add: 0.5 * (0.5 + 0.25), then 0.5 * (0.375 + 0.125); layer 3 learns
        # from the add alone: 0.5 * (0.5 + 0.375), then 0.5 * (0.4375 + 0.25)
        assert values(agent, self.FORK)[2:] == pytest.approx([0.34375, 0.25, 0.125], abs=1e-12)

    def test_every_proposal_is_of_the_space(self):
        agent, draws = QLearning(V2, learning_rate=0.3), rng()
        for epsilon in (1.0, 0.5, 0.1, 0.0):
            blocks = [agent.propose(epsilon, draws) for _ in range(64)]
            for block in blocks:
                V2.check(block)
                agent.learn(block, 10.0 * len(block.leaves))
        with pytest.raises(ValueError, match="conv 3x3 is not in this space"):
            agent.learn(TWO, 50.0)

    @settings(max_examples=60, deadline=None)
    @given(seed=st.integers(0, 2**32))
    def test_mutations_are_of_the_space(self, seed):
        draws = rng(seed)
        block = V2.sample(draws)
        for _ in range(5):
            block = V2.mutate(block, draws)
            V2.check(block)


@pytest.mark.parametrize("space", [Space(), V2], ids=["v1", "v2"])
def test_a_search_of_the_papers_size_takes_seconds(space):
    agent, schedule, draws = QLearning(space), EpsilonSchedule.paper(), rng()
    begun = time.process_time()
    for iteration in range(schedule.iterations):
        blocks = [agent.propose(schedule.at(iteration), draws) for _ in range(64)]
        agent.learn_from([(block, 50.0 + len(block.layers)) for block in blocks], draws)
    assert time.process_time() - begun < 20  # 2 seconds on one core of 2025


class CountingLearner(QLearning):
    def __init__(self, *arguments, **named):
        super().__init__(*arguments, **named)
        self.learned = Counter()

    def learn(self, block, reward):
        self.learned[block, reward] += 1
        super().learn(block, reward)


class TestReplay:
    def test_draws_from_everything_remembered_with_replacement(self):
        agent = CountingLearner(Space(), replay=64, batch=3)
        draws = rng()
        agent.learn_from([(TWO, 80.0)] * 3, draws)
        assert agent.learned == {(TWO, 80.0): 64}
        agent.learn_from([(POOL, 30.0), (THREE, 40.0), (TWO, 80.0)], draws)
        assert agent.learned.total() == 128
        assert agent.learned[POOL, 30.0] > 5
        assert agent.learned[THREE, 40.0] > 5
        assert agent.learned[TWO, 80.0] - 64 > 15  # remembered four times: two in three

    @pytest.mark.parametrize("replay, batch", [(64, 16), (64, 64), (10, 16), (5, 3)])
    def test_outcomes_one_by_one_are_learned_and_replayed_as_often_as_together(self, replay, batch):
        agent = CountingLearner(Space(), replay=replay, batch=batch)
        replayed = []
        for number in range(1, 2 * batch + 1):
            agent.learn_from([(TWO, 80.0)], rng())
            replayed.append(agent.learned.total() - number)  # each was learned at once, too
        assert replayed[batch - 1 :: batch] == [replay, 2 * replay]
        assert max(np.diff([0, *replayed])) <= replay / batch + 1

    def test_an_iteration_teaches_by_replay_alone(self):
        agent = CountingLearner(Space(), replay=0, batch=1)
        agent.learn_from([(TWO, 80.0)], rng())
        assert not agent.learned

    def test_nothing_to_remember(self):
        agent = CountingLearner(Space(), replay=64)
        agent.learn_from([], rng())
        assert not agent.learned


@pytest.mark.parametrize("kind", ["q_learning", "dyna_q", "random", "evolution"])
def test_the_same_calls_give_the_same_agent(kind):
    made = {
        "q_learning": QLearningSettings(learning_rate=0.3),
        "dyna_q": DynaQSettings(imagined=16),
        "random": RandomSettings(),
        "evolution": EvolutionSettings(population=8, tournament=3),
    }[kind]

    def history():
        agent, blocks = build_agent(Space(6), made, 4, kernels), []
        for iteration in range(6):
            batch = [agent.propose(0.5, rng(100 * iteration + n)) for n in range(4)]
            agent.learn_from([(b, 7.0 * len(b.layers)) for b in batch], rng(iteration))
            blocks += batch
        return blocks

    blocks = history()
    assert history() == blocks
    assert len(set(blocks)) > 3


def kernels(block):
    """How many layers of each kernel and kind: what some reward may depend on."""
    codes = [(layer.op, layer.kernel) for layer in block.layers]
    return np.array([codes.count((1, 1)), codes.count((1, 3)), codes.count((2, 3)), len(codes)])


def test_build_agent_passes_every_setting():
    agent = build_agent(
        Space(5),
        QLearningSettings(learning_rate=0.2, discount=0.9, initial_q=0.1, replay=3),
        7,
        kernels,
    )
    assert isinstance(agent, QLearning)
    known = (agent.learning_rate, agent.discount, agent.initial_q, agent.replay, agent.batch)
    assert known == (0.2, 0.9, 0.1, 3, 7)
    assert agent.space == Space(5)
    assert isinstance(build_agent(Space(5), RandomSettings(), 7, kernels), RandomWalk)
    dyna = build_agent(Space(5), DynaQSettings(imagined=9), 7, kernels)
    assert isinstance(dyna, DynaQ)
    assert dyna.imagined == 9
    assert isinstance(build_agent(Space(5), EvolutionSettings(), 7, kernels), Evolution)


class TestSchedule:
    def test_the_papers_178_iterations(self):
        schedule = EpsilonSchedule.paper()
        assert schedule.iterations == 178
        expected = [1.0] * 95 + [0.9] * 7 + [0.8] * 7 + [0.7] * 7
        for epsilon in (0.6, 0.5, 0.4, 0.3, 0.2):
            expected += [epsilon] * 10
        expected += [0.1] * 12
        assert [schedule.at(iteration) for iteration in range(178)] == expected
        edges = {94: 1.0, 95: 0.9, 101: 0.9, 102: 0.8, 115: 0.7, 116: 0.6, 165: 0.2, 166: 0.1}
        assert {iteration: schedule.at(iteration) for iteration in edges} == edges

    @pytest.mark.parametrize("iteration", [-1, 178, 10**9])
    def test_outside_it_is_an_error(self, iteration):
        with pytest.raises(
            IndexError, match=f"iteration is {iteration}: the schedule has 0 to 177"
        ):
            EpsilonSchedule.paper().at(iteration)

    @pytest.mark.parametrize(
        ("begun", "now", "differs"),
        [
            (((1.0, 2), (0.5, 2)), ((1.0, 2), (0.5, 2)), None),
            (((1.0, 2), (0.5, 2)), ((1.0, 2), (0.5, 9), (0.1, 1)), None),
            (((1.0, 2), (0.5, 2)), ((1.0, 1), (1.0, 1), (0.5, 2)), None),
            (((1.0, 2), (0.5, 2)), ((1.0, 3), (0.5, 2)), 2),
            (((1.0, 2), (0.5, 2)), ((1.0, 2), (0.5, 1)), 3),
            (((1.0, 2), (0.5, 2)), ((0.9, 2), (0.5, 2)), 0),
        ],
    )
    def test_it_may_only_grow(self, begun, now, differs):
        assert EpsilonSchedule(now).differs_from_prefix(begun) == differs


class Recording(Space):
    """Counts the blocks that are mutated."""

    parents = Counter()

    def mutate(self, block, rng):
        self.parents[block] += 1
        return super().mutate(block, rng)


def recorded(**arguments):
    Recording.parents = Counter()
    return Evolution(Recording(), **arguments)


def propose(agent, count):
    draws = rng()
    return [agent.propose(0.0, draws) for _ in range(count)]


class TestEvolution:
    def test_until_the_population_is_full_it_walks_at_random(self):
        agent = recorded(population=3, tournament=2)
        agent.learn_from([(TWO, 80.0), (POOL, 70.0)], rng())
        assert len(set(propose(agent, 50))) > 20
        assert not agent.space.parents
        agent.learn_from([(THREE, 60.0)], rng())
        propose(agent, 50)
        assert agent.space.parents.total() == 50

    def test_the_best_of_the_tournament_is_the_parent(self):
        agent = recorded(population=3, tournament=2)
        agent.learn_from([(TWO, 80.0), (POOL, 70.0), (THREE, 60.0)], rng())
        propose(agent, 600)
        # of the three pairs the best is in two, the worst never wins
        assert set(agent.space.parents) == {TWO, POOL}
        assert 350 < agent.space.parents[TWO] < 450

    def test_the_oldest_dies_however_good(self):
        agent = recorded(population=3, tournament=3)
        agent.learn_from([(TWO, 99.0), (POOL, 50.0), (THREE, 60.0)], rng())
        propose(agent, 5)
        assert set(agent.space.parents) == {TWO}
        agent.learn_from([(SUM, 55.0)], rng())
        agent.space.parents.clear()
        propose(agent, 5)
        assert set(agent.space.parents) == {THREE}

    @settings(max_examples=150, deadline=None)
    @given(seed=st.integers(0, 2**32), max_index=st.integers(2, 23))
    def test_mutations_are_legal_and_one_layer_away(self, seed, max_index):
        space, draws = Space(max_index), rng(seed)
        block = space.sample(draws)
        for _ in range(3):
            mutated = space.mutate(block, draws)
            space.check(mutated)
            assert Block.parse(str(mutated), max_index) == mutated
            assert mutated != block
            assert abs(len(mutated.layers) - len(block.layers)) <= 1
            if len(mutated.layers) == len(block.layers):
                changed = [a != b for a, b in zip(mutated.layers, block.layers, strict=True)]
                assert sum(changed) == 1
            block = mutated

    def test_blocks_grow_shrink_and_change(self):
        agent, draws = Evolution(Space(23)), rng()
        lengths = Counter(len(agent.space.mutate(SUM, draws).layers) for _ in range(300))
        assert set(lengths) == {3, 4, 5}
        assert min(lengths.values()) > 30

    def test_evolution_climbs(self):
        agent, draws = Evolution(Space(8), population=20, tournament=8), rng()

        def score(block):
            return float(10 * sum(layer.op == 5 for layer in block.layers))

        means = []
        for _ in range(15):
            blocks = [agent.propose(0.0, draws) for _ in range(16)]
            means.append(np.mean([score(block) for block in blocks]))
            agent.learn_from([(block, score(block)) for block in blocks], draws)
        assert np.mean(means[-3:]) > np.mean(means[:2]) + 10


def test_random_walk_proposes_what_the_space_samples():
    agent = RandomWalk(Space(9))
    assert agent.propose(0.0, rng(4)) == Space(9).sample(rng(4))
    agent.learn_from([(TWO, 80.0)], rng())
