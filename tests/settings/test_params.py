"""Settings: the file says what the defaults are, profiles and overrides lie over them."""

import ast
import dataclasses
import itertools
import json
import typing
from pathlib import Path

import pytest
import yaml

from blockqnn.errors import SettingsError
from blockqnn.params import load_settings, profiles, settings_from_dict
from blockqnn.settings import (
    DataSettings,
    DynaQSettings,
    EvolutionSettings,
    InlineSettings,
    QLearningSettings,
    RandomSettings,
    Recipe,
    Settings,
)
from blockqnn.settings.search import PAPER_SCHEDULE
from blockqnn.space import V1, V2, Space

ROOT = Path(__file__).parents[2]
PARAMS = ROOT / "params.yaml"


def load(profile=None, **overrides):
    """Overrides with a double underscore for the dot."""
    named = {name.replace("__", "."): value for name, value in overrides.items()}
    return load_settings(PARAMS, profile, named)


@pytest.fixture
def written(tmp_path):
    """Write a params file and load it."""

    def write(text):
        path = tmp_path / "params.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return load_settings(path)

    return write


class TestParamsFile:
    def test_it_is_the_demo(self):
        assert load() == load("demo")
        assert load().data == DataSettings(name="digits", holdout=0.3)  # embedded: no download

    def test_it_states_every_field(self):
        def missing(settings, tree, where=""):
            for field in dataclasses.fields(settings):
                value = getattr(settings, field.name)
                if field.name not in tree:
                    yield where + field.name
                elif dataclasses.is_dataclass(value):
                    yield from missing(value, tree[field.name], f"{where}{field.name}.")

        tree = yaml.safe_load(PARAMS.read_text())["search"]
        demo = dataclasses.replace(Settings(), agent=DynaQSettings())
        # what a search has no use for, or no need to set, is described in blockqnn/settings
        rare = {"data.reader", "data.loaders", "network.match_repeats"} | {
            f"recipe.{field.name}" for field in dataclasses.fields(Recipe)
        } - {f"recipe.{name}" for name in tree["recipe"]}
        assert set(missing(demo, tree)) <= rare

    def test_the_papers_profile_has_the_papers_numbers(self):
        settings = load("paper")
        assert settings.schedule == PAPER_SCHEDULE
        assert sum(iterations for _, iterations in settings.schedule) * settings.batch == 11_392
        agent = (settings.agent.learning_rate, settings.agent.discount, settings.agent.replay)
        assert agent == (0.01, 1.0, 64)
        assert (settings.reward.mu, settings.reward.rho) == (1.0, 8.0)
        assert settings.network.filters == (32, 64, 128)
        recipe = settings.recipe
        assert (recipe.epochs, recipe.batch, recipe.optimizer) == (12, 256, "adam")
        assert (recipe.learning_rate, recipe.decay, recipe.decay_epochs) == (0.001, 0.2, 5)
        assert (recipe.restarts, recipe.restart_factor) == (3, 0.4)
        assert (recipe.crop, recipe.flip, recipe.cutout) == (0, False, 0)

    def test_every_value_says_what_it_is(self):
        silent = [
            field.target.id
            for room in (ROOT / "blockqnn" / "settings").glob("*.py")
            for cls in ast.parse(room.read_text()).body
            if isinstance(cls, ast.ClassDef)
            for field, after in itertools.pairwise(cls.body)
            if isinstance(field, ast.AnnAssign) and not isinstance(after, ast.Expr)
        ]
        sections = {"space", "agent", "reward", "data", "network", "recipe", "budget", "workers"}
        sections |= {"checkpoint", "evaluation", "stopping", "latency"}
        assert set(silent) - sections == {"kind"}

    @pytest.mark.parametrize("profile", [None, *profiles(PARAMS)])
    def test_settings_survive_json(self, profile):
        settings = load(profile)
        assert settings_from_dict(json.loads(json.dumps(settings.to_dict()))) == settings


class TestProfiles:
    def test_the_promised_ones_are_there(self):
        assert {"demo", "paper", "cifar10-laptop", "own-images"} <= set(profiles(PARAMS))

    def test_paper_is_the_default_but_for_the_download(self):
        data = dataclasses.replace(Settings().data, download=True)
        assert load("paper") == dataclasses.replace(Settings(), data=data)

    def test_what_a_profile_leaves_out_stays(self):
        small = load("paper-small")
        assert (small.recipe.optimizer, small.recipe.epochs) == ("adam", 4)
        assert small.data.holdout == 0.2

    def test_an_unknown_one(self):
        with pytest.raises(SettingsError, match=r"profile is 'dmo': choose one of .*demo.*paper"):
            load("dmo")

    @pytest.mark.parametrize("name", ["", "../params", "/etc/passwd"])
    def test_a_profile_is_a_name_not_a_path(self, name):
        with pytest.raises(SettingsError, match="profile is"):
            load(name)


class TestOverrides:
    def test_they_win_over_the_profile(self):
        assert load("demo", recipe__epochs=7).recipe.epochs == 7

    @pytest.mark.parametrize("order", list(itertools.permutations(range(3))), ids=str)
    def test_order_does_not_matter(self, order):
        data = [("data.root", "elsewhere"), ("data.name", "cifar10"), ("data.holdout", 0.25)]
        agent = [("agent.tournament", 2), ("agent.kind", "evolution"), ("agent.population", 9)]
        overrides = dict(pair for place in order for pair in (data[place], agent[place]))
        settings = load_settings(PARAMS, "demo", overrides)
        assert settings.data == DataSettings(name="cifar10", root="elsewhere", holdout=0.25)
        assert settings.agent == EvolutionSettings(population=9, tournament=2)

    def test_another_kind_drops_the_settings_of_the_old_one(self):
        assert load("demo", agent__kind="random").agent == RandomSettings()
        assert load(workers__kind="inline", workers__threads=2).workers == InlineSettings(threads=2)

    def test_the_same_kind_keeps_them(self):
        agent = load("paper-small", agent__kind="q_learning", agent__replay=8).agent
        assert agent == QLearningSettings(learning_rate=0.2, replay=8)
        assert load("paper", data__name="cifar100", data__images=500).data.root == "data"

    def test_a_setting_of_another_kind_is_an_error(self):
        with pytest.raises(SettingsError, match=r"agent\.replay is not a setting"):
            load("paper", agent__replay=8, agent__kind="random")
        with pytest.raises(SettingsError, match=r"workers\.retries is not a setting"):
            load(workers__retries=1, workers__kind="inline")

    def test_a_whole_section(self):
        assert load(agent={"kind": "random"}).agent == RandomSettings()
        recipe = load("paper", recipe={"epochs": 2}).recipe
        assert recipe == Recipe(epochs=2)

    @pytest.mark.parametrize(
        ("name", "value", "message"),
        [
            ("recipe.epoch", 3, "recipe.epoch is not a setting: did you mean epochs?"),
            ("recipe.batchsize", 3, "did you mean batch?"),
            ("sed", 3, "sed is not a setting: did you mean seed?"),
            ("data.roots", "x", "did you mean root?"),
            ("zzz", 3, "zzz is not a setting: known are seed, mode"),
            ("recipe", 5, "recipe is 5: give a section"),
            ("seed.x", 5, "seed is {'x': 5}: give a whole number"),
            ("", 5, "is not a setting"),
            ("agent", "random", "agent is 'random': give a section"),
        ],
    )
    def test_wrong_names(self, name, value, message):
        with pytest.raises(SettingsError) as caught:
            load_settings(PARAMS, None, {name: value})
        assert message in str(caught.value)


@pytest.mark.parametrize(
    ("tree", "space"),
    [
        ({}, V1),
        ({"version": "v1", "max_index": 8}, Space(8)),
        ({"max_index": 8, "max_width": 2}, Space(8, max_width=2)),
        ({"version": "v2"}, V2),
        ({"version": "v2", "max_index": 8, "max_width": None}, Space(8, V2.operations, 4)),
        ({"version": "v2", "max_width": 9}, Space(12, V2.operations, 9)),
    ],
)
def test_a_space_takes_from_its_version_what_is_not_given(tree, space):
    settings = settings_from_dict({"data": {"name": "digits"}, "space": tree})
    assert settings.space.build() == space
    assert settings_from_dict(json.loads(json.dumps(settings.to_dict()))) == settings


def test_numbers_become_the_type_of_the_field():
    settings = settings_from_dict({"data": {"name": "digits"}, "reward": {"mu": 2}})
    assert type(settings.reward.mu) is float
    assert settings_from_dict({"recipe": {"learning_rate": "1e-3"}}).recipe.learning_rate == 0.001


def test_settings_are_frozen_and_compare_by_value():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().seed = 3
    assert Settings() == Settings()
    assert hash(Settings()) == hash(Settings())
    assert typing.get_type_hints(Settings)["batch"] is int


class TestNastyYaml:
    def test_an_unknown_section(self, written):
        with pytest.raises(SettingsError, match=r"searc is not a section of .*did you mean search"):
            written("searc: {seed: 1}")
        with pytest.raises(SettingsError, match="search is None in .*: give a section"):
            written("recipes: {}")

    @pytest.mark.parametrize(
        "text",
        [
            "seed: !!python/object/apply:os.system ['false']",
            "a: b: c",
            "seed: [1",
            "\tseed: 1",
            "seed: 1\n---\nseed: 2",
            "? [a]\n: 1",
            "seed: \x00",
            "seed: 0x_",
            "data: {root: 2020-99-99}",
            "seed: " + "9" * 5000,
            "[" * 400,
            b"seed: \xff\xfe",
        ],
        ids=lambda text: repr(text)[:30],
    )
    def test_what_is_not_yaml(self, written, text):
        with pytest.raises(SettingsError, match=r"params\.yaml is not valid YAML: .+") as caught:
            written(text)
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize("text", ["", "null", "- 1", "seed", "3", "# nothing"])
    def test_what_holds_no_settings(self, written, text):
        with pytest.raises(SettingsError, match="holds no settings: write `name: value` lines"):
            written(text)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("data: {name: no}", "data.name is False: give a text"),
            ("mode: on", "mode is True: choose sync or async"),
            ("1: 2", "1 is not a setting"),
            ("~: 2", "None is not a setting"),
            ("seed: 2020-01-01", "seed is datetime.date(2020, 1, 1): give a whole number"),
            ("data: &d {name: *d}", "data.name is {'name': {...}}: give a text"),
            ("schedule: &s [*s, *s]", "schedule is [[...], [...]]: give a number"),
            ("reward: {mu: .nan}", "reward.mu is nan: give a number"),
            ("reward: {mu: .inf}", "reward.mu is inf: give a number"),
            ("seed: !!binary aGk=", "seed is b'hi': give a whole number"),
        ],
    )
    def test_what_means_something_else(self, written, text, message):
        with pytest.raises(SettingsError) as caught:
            written(f"search: {{{text}}}")
        assert message in str(caught.value)

    def test_an_editors_byte_order_mark(self, written):
        assert written(b"\xef\xbb\xbfsearch: {data: {name: digits}, seed: 3}").seed == 3

    def test_files_that_cannot_be_read(self, tmp_path):
        with pytest.raises(SettingsError, match=r"cannot read .*absent\.yaml .*--params"):
            load_settings(tmp_path / "absent.yaml")
        with pytest.raises(SettingsError, match=r"cannot read .*Is a directory"):
            load_settings(tmp_path)


def test_the_old_name_of_local_workers_is_read():
    old = settings_from_dict({"data": {"name": "digits"}, "workers": {"kind": "processes"}})
    assert old == settings_from_dict({"data": {"name": "digits"}, "workers": {"kind": "local"}})
    assert old.to_dict()["workers"]["kind"] == "local"
