"""Wrong settings are refused in a sentence."""

import math

import pytest

from blockqnn.errors import SettingsError
from blockqnn.params import merge, settings_from_dict


def refusal(tree):
    """The sentence with which settings are refused, all else being embedded data."""
    base = {"data": {"name": "digits"}}
    with pytest.raises(SettingsError) as caught:
        settings_from_dict(merge(base, tree))
    return str(caught.value)


WRONG = [
    ({"seed": -1}, "seed is -1: give 0"),
    ({"seed": 2**63}, "seed is 9223372036854775808: give 0 to 2**63 - 1"),
    ({"seed": True}, "seed is True: give a whole number"),
    ({"seed": 1.0}, "seed is 1.0: give a whole number"),
    ({"seed": "1"}, "seed is '1': give a whole number"),
    ({"seed": None}, "seed is None: give a whole number"),
    ({"tracking": 1}, "tracking is 1: give true or false"),
    ({"mode": "parallel"}, "mode is 'parallel': choose sync or async"),
    ({"batch": 0}, "batch is 0: give 1 to 1,000,000"),
    ({"batch": 10**9}, "batch is 1000000000: give 1 to 1,000,000"),
    ({"schedule": []}, "schedule is (): give pairs"),
    ({"schedule": [[1.5, 3]]}, "schedule is ((1.5, 3),): give pairs"),
    ({"schedule": [[math.nan, 3]]}, "schedule is ((nan, 3),): give pairs"),
    ({"schedule": [[1.0, 0]]}, "schedule is ((1.0, 0),): give pairs"),
    ({"schedule": [[1.0, True]]}, "schedule is True: give a whole number"),
    ({"schedule": [[1.0, 2, 3]]}, "schedule has the item [1.0, 2, 3]: give 2 values"),
    ({"schedule": 5}, "schedule is 5: give a list"),
    ({"schedule": "1.0"}, "schedule is '1.0': give a list"),
    ({"space": {"max_index": 1}}, "space.max_index is 1: give 2 to 64"),
    ({"space": {"version": "v3"}}, "space.version is 'v3': choose v1 or v2"),
    ({"space": {"max_width": 0}}, "space.max_width is 0: give 1 or more, or null"),
    ({"space": {"max_width": "4"}}, "space.max_width is '4': give a whole number or null"),
    (
        {"space": {"skeletons": ["cifar", "vgg"]}},
        "space.skeletons is ('cifar', 'vgg'): choose among cifar, half, imagenet, each once",
    ),
    ({"space": {"repeats": [0]}}, "space.repeats is (0,): give numbers of 1 or more, each once"),
    ({"space": {"repeats": [1, 1]}}, "space.repeats is (1, 1): give numbers of 1 or more, each"),
    ({"space": {"stages": [1], "repeats": [1]}}, "space.stages is (1,): give numbers of 2 or more"),
    ({"space": {"stages": [2]}}, "space.stages is (2,): it wants space.repeats to choose from"),
    (
        {"space": {"stages": [2, 4], "repeats": [1]}},
        "space.stages is (2, 4): network.filters has 3",
    ),
    (
        {"space": {"connections": ["add"]}},
        "space.connections is ('add',): choose among none, shortcut, concat, each once",
    ),
    (
        {"space": {"connections": ["concat"]}, "network": {"repeats": 1}},
        "space.connections is ('concat',): it joins blocks of a stage",
    ),
    (
        {"space": {"connections": ["none", "shortcut"]}, "recipe": {"drop_path": 0.1}},
        "recipe.drop_path is 0.1: networks that are the same but for it share a training",
    ),
    (
        {"space": {"repeats": [1]}, "network": {"filters": [8] * 9}},
        "space.repeats is (1,): networks of more than 8 stages have one shape; give fewer filters",
    ),
    (
        {"space": {"repeats": [*range(1, 100)]}},
        "shapes with 3 stages; 4,096 are the most",
    ),
    ({"agent": {"kind": "sarsa"}}, "agent.kind is 'sarsa': choose one of q_learning, random"),
    ({"agent": {"kind": ["random"]}}, "agent.kind is ['random']: choose one of"),
    (
        {"agent": {"kind": "q_learning", "q_learning": 1, "discount": "1e-1"}},
        "agent.q_learning is not a setting: did you mean learning_rate?",
    ),
    ({"agent": {"replay": 3}}, "agent.kind is None: choose one of"),
    ({"agent": {"kind": "q_learning", "learning_rate": 0}}, "agent.learning_rate is 0.0: give"),
    ({"agent": {"kind": "q_learning", "discount": 1.1}}, "agent.discount is 1.1: give 0 to 1"),
    ({"agent": {"kind": "q_learning", "initial_q": math.inf}}, "agent.initial_q is inf: give"),
    ({"agent": {"kind": "evolution", "tournament": 101}}, "agent.tournament is 101: give 1 to"),
    ({"reward": {"mu": math.nan}}, "reward.mu is nan: give a number"),
    ({"reward": {"rho": "eight"}}, "reward.rho is 'eight': give a number"),
    ({"reward": {"latency": math.inf}}, "reward.latency is inf: give a number"),
    ({"reward": {"mu": 1e308}}, "reward.mu is 1e+308: give a number from -1,000 to 1,000"),
    ({"budget": {"latency": 0}}, "budget.latency is 0.0: give milliseconds greater than 0, or"),
    ({"budget": {"latency": math.nan}}, "budget.latency is nan: give milliseconds"),
    ({"latency": {"batch": 0}}, "latency.batch is 0: give 1 to 65,536"),
    ({"latency": {"passes": 0}}, "latency.passes is 0: give 1 to 10,000"),
    (
        {"latency": {"measure": True, "batch": 2**62}},
        f"latency.batch is {2**62}: give 1 to 65,536",
    ),
    ({"latency": {"batch": 8}}, "latency.batch is 8: no latency is used; leave it out, or"),
    ({"latency": 5}, "latency is 5: give a section of `name: value` lines"),
    ({"data": {"name": "mnist"}}, "data.name is 'mnist': choose one of digits"),
    ({"data": {"name": "cifar10"}}, "data.root is None: give the directory where cifar10 lies"),
    ({"data": {"name": "digits", "root": "x"}}, "data.root is 'x': digits is embedded"),
    ({"data": {"name": "digits", "download": True}}, "data.download is True: digits has no"),
    ({"data": {"holdout": 1.0}}, "data.holdout is 1.0: give more than 0, less than 1"),
    ({"data": {"holdout": math.nan}}, "data.holdout is nan: give"),
    ({"data": {"images": 1}}, "data.images is 1: give 2 or more"),
    ({"data": {"image_size": 8}}, "data.image_size is 8: only folder and"),
    ({"data": {"name": "folder", "root": "x"}}, "data.image_size is None: give 8 to 1024"),
    ({"data": {"name": "folder", "root": "x", "image_size": 7}}, "data.image_size is 7: give 8"),
    ({"data": None}, "data is None: give a section"),
    ({"network": {"skeleton": "vgg"}}, "network.skeleton is 'vgg': choose cifar, half or imagenet"),
    (
        {"network": {"match": "macs", "match_repeats": [1, 2]}},
        "network.match_repeats is (1, 2): in a search the agent chooses them; give space.repeats",
    ),
    ({"network": {"match_repeats": [1]}}, "network.match_repeats is (1,): nothing is matched"),
    ({"network": {"filters": []}}, "network.filters is (): give at least one"),
    ({"network": {"filters": [8, 0]}}, "network.filters is (8, 0): give"),
    ({"network": {"repeats": 0}}, "network.repeats is 0: give 1 or more"),
    ({"network": {"repeats": [1, 2]}}, "network.repeats is (1, 2): give one number >= 1 for each"),
    ({"network": {"repeats": True}}, "network.repeats is True: give a whole number or a list"),
    (
        {"network": {"connections": "dense"}},
        "network.connections is 'dense': choose none, shortcut",
    ),
    (
        {"network": {"connections": "concat", "repeats": 1}},
        "network.connections is 'concat': it joins blocks of a stage; give network.repeats of 2",
    ),
    ({"recipe": {"epochs": 0}}, "recipe.epochs is 0: give 1 or more"),
    ({"recipe": {"batch": 1}}, "recipe.batch is 1: give 2 or more"),
    ({"recipe": {"learning_rate": math.inf}}, "recipe.learning_rate is inf: give a rate"),
    ({"recipe": {"learning_rate": "nan"}}, "recipe.learning_rate is nan: give a rate"),
    ({"recipe": {"learning_rate": 10**400}}, "recipe.learning_rate is 1000"),
    ({"recipe": {"weight_decay": math.inf}}, "recipe.weight_decay is inf: give 0 or more"),
    ({"recipe": {"weight_decay": -1e-4}}, "recipe.weight_decay is -0.0001: give 0 or more"),
    ({"recipe": {"momentum": 1.0}}, "recipe.momentum is 1.0: give 0 to below 1"),
    ({"recipe": {"decay": 0.0}}, "recipe.decay is 0.0: give a factor greater than 0"),
    ({"recipe": {"flip": "yes"}}, "recipe.flip is 'yes': give true or false"),
    ({"recipe": {"precision": "float8"}}, "recipe.precision is 'float8': choose auto"),
    ({"recipe": {"optimizer": "adamv"}}, "recipe.optimizer is 'adamv': choose adam"),
    ({"recipe": {"schedule": "tanh"}}, "recipe.schedule is 'tanh': choose step, multistep"),
    ({"recipe": {"schedule": "multistep"}}, "recipe.milestones is (): multistep needs"),
    ({"recipe": {"milestones": [3]}}, "recipe.milestones is (3,): step has none"),
    (
        {"recipe": {"schedule": "multistep", "milestones": [5, 3]}},
        "recipe.milestones is (5, 3): give rising",
    ),
    ({"recipe": {"min_learning_rate": 0.1}}, "recipe.min_learning_rate is 0.1: step has no end"),
    ({"recipe": {"warmup_epochs": 12}}, "recipe.warmup_epochs is 12: give fewer than epochs"),
    ({"recipe": {"ema": 1.0}}, "recipe.ema is 1.0: give 0 to below 1"),
    ({"recipe": {"clip_gradient": 0}}, "recipe.clip_gradient is 0.0: give a norm"),
    ({"recipe": {"accumulate": 200}}, "recipe.accumulate is 200: give parts of 2 images or more"),
    ({"recipe": {"loss": "mse"}}, "recipe.loss is 'mse': choose cross_entropy, bce"),
    ({"recipe": {"augment_repeats": 3}}, "recipe.augment_repeats is 3: images in memory"),
    ({"recipe": {"compile": True}}, "recipe.compile is True: only final trainings"),
    (
        {"data": {"name": "imagenet", "root": "x", "image_size": 64}},
        "data.name is 'imagenet': a search keeps its images in memory",
    ),
    ({"data": {"reader": "tar"}}, "data.reader is 'tar': only imagenet has one"),
    ({"data": {"name": "prepared"}}, "data.root is None: give the file that `blockqnn data`"),
    ({"budget": {"times_plain": 0}}, "budget.times_plain is 0.0: give a factor greater than 0"),
    ({"reward": {"objective": "accuracy", "rho": 1}}, "reward.rho is 1.0: only the paper's reward"),
    (
        {"reward": {"trade_off": {"macs": 1}}},
        "reward.trade_off.macs is 1.0: the paper's reward has",
    ),
    ({"recipe": {"images": 1}}, "recipe.images is 1: give 2 or more, or null"),
    (
        {"recipe": {"images": 90}, "rungs": [{"images": 80}]},
        "rungs.images is 80: give as many as the rung before has",
    ),
    ({"rungs": [{"images": 80}]}, "rungs.images is 80: give as many as the rung before has"),
    ({"rungs": [{"share": 0}]}, "rungs.share is 0.0: give above 0 to 1"),
    ({"rungs": [{"epochs": 0}]}, "rungs.epochs is 0: give 1 or more"),
    (
        {"recipe": {"warmup_epochs": 1}, "rungs": [{"epochs": 1}]},
        "rungs.epochs is 1: give more than recipe.warmup_epochs",
    ),
    ({"rungs": {"epochs": 1}}, "rungs is {'epochs': 1}: give a list"),
    ({"latency": {"source": "measured"}}, "latency.source is 'measured': no budget and no"),
    ({"budget": {"seconds": 0}}, "budget.seconds is 0.0: give seconds greater than 0"),
    ({"budget": {"macs": 0}}, "budget.macs is 0: give more than 0, or null"),
    ({"budget": {"macs": "1e9"}}, "budget.macs is '1e9': give a whole number or null"),
    ({"workers": {"kind": "inline", "device": "gpu"}}, "workers.device is 'gpu': give cpu, cuda"),
    ({"workers": {"kind": "inline", "device": "cuda:"}}, "workers.device is 'cuda:': give cpu"),
    ({"workers": {"kind": "inline", "device": "cuda:²"}}, "workers.device is 'cuda:²': give cpu"),
    ({"workers": {"kind": "local", "count": 0}}, "workers.count is 0: give 1 or more, or null"),
    ({"workers": {"kind": "local", "devices": "cpu"}}, "workers.devices is 'cpu': give a list"),
    (
        {"workers": {"kind": "local", "timeout": 1e300}},
        "workers.timeout is 1e+300: give 1,000,000,000 seconds or less",
    ),
    ({"workers": {"kind": "local", "timeout": 0}}, "workers.timeout is 0.0: give seconds"),
    (
        {"workers": {"kind": "ray", "gpus_per_candidate": 2}},
        "workers.gpus_per_candidate is 2.0: give 1 or a fraction of one GPU",
    ),
    ({"workers": {"kind": "ray", "address": "ray://h:1"}}, "workers.address is 'ray://h:1': give "),
]


@pytest.mark.parametrize(("tree", "message"), WRONG, ids=[message[:50] for _, message in WRONG])
def test_refusals_name_field_value_and_remedy(tree, message):
    assert message in refusal(tree)


def test_every_checked_range_has_both_ends():
    accepted = [
        {"space": {"max_index": 2}},
        {"space": {"max_index": 64}},
        {"space": {"version": "v2", "max_index": 64, "max_width": 1}},
        {"agent": {"kind": "q_learning", "learning_rate": 1, "discount": 0, "replay": 0}},
        {"agent": {"kind": "evolution", "population": 2, "tournament": 1}},
        {"agent": {"kind": "evolution", "population": 7, "tournament": 7}},
        {"schedule": [[0, 1], [1, 1]]},
        {"network": {"filters": [4, 8], "repeats": [1, 2], "connections": "concat"}},
        {"network": {"filters": [4, 8], "repeats": 1, "connections": "shortcut"}},
        {"recipe": {"epochs": 1, "batch": 2, "decay_epochs": 1, "restarts": 0, "crop": 0}},
        {"recipe": {"learning_rate": "1e-3"}},  # YAML reads it as text
        {"workers": {"kind": "inline", "device": "cuda:1"}},
        {"workers": {"kind": "local", "devices": ["cuda", "cpu", "mps", "auto"]}},
        {"seed": 2**63 - 1},
    ]
    for tree in accepted:
        settings_from_dict(merge({"data": {"name": "digits"}}, tree))
