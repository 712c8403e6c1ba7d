"""Settings from params.yaml, a profile and `--set` into the classes of `blockqnn.settings`."""

import dataclasses
import difflib
import json
import sys
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union

from pydantic import TypeAdapter, ValidationError

from blockqnn.errors import SettingsError
from blockqnn.settings import Plan, Settings

Tree = dict[str, Any]

SECTIONS = ("search", "recipes", "training", "evaluation", "pipeline", "imagenet")
"""Of a params file; the last two are read by dvc.yaml alone."""

T = TypeVar("T")

_ADAPTERS: dict[type, TypeAdapter[Any]] = {}
"""Readers of `Settings` and `Plan`, each made when it is first needed: that takes a while."""


def load_settings(
    params: Path = Path("params.yaml"),
    profile: str | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Settings:
    """Settings of a search: section `search` of `params`, overridden by `profiles/<profile>.yaml`
    beside it, then by `overrides`.

    `overrides` maps dotted names to values, say `{"recipe.epochs": 3}`. Raises `SettingsError` for
    files that cannot be read, unknown names and values that cannot be used.
    """
    search = _section(_tree(params, profile), "search", params)
    return settings_from_dict(merge(search, _branches(overrides)))


def data_of_search(params: Path = Path("params.yaml"), profile: str | None = None) -> str:
    """Name of the data set that a search with nothing overridden has; raises `SettingsError`."""
    data = _section(_section(_tree(params, profile), "search", params), "data", params)
    if not isinstance(name := data.get("name"), str):
        raise SettingsError(f"data.name is {name!r}: name a data set (section search of {params})")
    return name


def load_plan(
    params: Path = Path("params.yaml"),
    data: str = "digits",
    profile: str | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Plan:
    """The plan of final trainings on one data set: `training.<data>` of `params`, overridden as in
    `load_settings`.

    Its `recipe` is the name of one under `recipes`, or a section of settings whose `base` is that
    name. Raises `SettingsError`.
    """
    tree = _tree(params, profile)
    plans = _section(tree, "training", params)
    if data not in plans:
        raise SettingsError(f"data is {data!r}: choose one of {_listed(plans)} (section training)")
    plan = merge({"evaluation": tree.get("evaluation") or {}}, _section(plans, data, params))
    plan = merge(plan, _branches(overrides))
    return plan_from_dict({**plan, "recipe": _recipe(plan.get("recipe", {}), tree)})


def plan_from_dict(tree: Mapping[str, Any]) -> Plan:
    """The inverse of `Plan.to_dict`."""
    return _build(Plan, tree)


def profiles(params: Path = Path("params.yaml")) -> list[str]:
    """Names of the profiles beside a params file."""
    return sorted(path.stem for path in (params.parent / "profiles").glob("*.yaml"))


def _tree(params: Path, profile: str | None) -> Tree:
    """All sections of a params file with a profile laid over them."""
    tree = _with_bases(_read(params))
    if profile is not None:
        tree = merge(tree, _with_bases(_read(_profile_path(params, profile))))
    for name in tree:
        if name not in SECTIONS:
            near = difflib.get_close_matches(str(name), SECTIONS, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(SECTIONS)}"
            raise SettingsError(f"{_listed([name])} is not a section of {params}: {hint}")
    return tree


def _section(tree: Tree, name: str, params: Path) -> Tree:
    section = tree.get(name)
    if not isinstance(section, dict):
        raise SettingsError(f"{name} is {section!r} in {params}: give a section of settings")
    return section


def _branches(overrides: Mapping[str, Any] | None) -> Tree:
    """Dotted names as a tree."""
    changes: Tree = {}
    for name, value in (overrides or {}).items():
        branch: Any = {"base": value} if name == "recipe" and isinstance(value, str) else value
        for part in reversed(name.split(".")):
            branch = {part: branch}
        changes = merge(changes, branch)
    return changes


def _with_bases(tree: Tree) -> Tree:
    """The same with `recipe: name` of a plan as `recipe: {base: name}`, which can be overridden."""
    plans = tree.get("training")
    if not isinstance(plans, dict):
        return tree
    changed = {
        label: {**plan, "recipe": {"base": plan["recipe"]}}
        for label, plan in plans.items()
        if isinstance(plan, dict) and isinstance(plan.get("recipe"), str)
    }
    return {**tree, "training": {**plans, **changed}}


def _recipe(section: object, tree: Tree) -> object:
    """A plan's recipe with the settings of its base, if it has one, below its own."""
    if not isinstance(section, dict) or "base" not in section:
        return section
    recipes = tree.get("recipes")
    known = recipes if isinstance(recipes, dict) else {}
    own = {name: value for name, value in section.items() if name != "base"}
    base = known.get(section["base"])
    if not isinstance(base, dict):
        raise SettingsError(
            f"recipe is {section['base']!r}: choose one of {_listed(known)} (section recipes)"
        )
    return {**base, **own}


def _listed(names: Iterable[object]) -> str:
    """Names that somebody wrote into a file, whatever they are, in one line."""
    return ", ".join(" ".join(str(name).split()) for name in names)


def _profile_path(params: Path, profile: str) -> Path:
    known = profiles(params)
    if profile not in known:
        raise SettingsError(f"profile is {profile!r}: choose one of {', '.join(known) or 'none'}")
    return params.parent / "profiles" / f"{profile}.yaml"


def _read(path: Path) -> Tree:
    import yaml  # here, so that workers, which get their settings as JSON, do not need it

    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        remedy = "run the command in the checkout, or name the file with --params"
        raise SettingsError(f"cannot read {path} ({error.strerror}): {remedy}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # of bytes, dates, depths
        raise SettingsError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(tree, dict):
        raise SettingsError(f"{path} holds no settings: write `name: value` lines")
    return tree


def flat(tree: Mapping[str, Any], prefix: str = "") -> Tree:
    """Nested settings by dotted names, say `recipe.epochs`; `--set` takes these."""
    found: Tree = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{name}.")
        else:
            found[prefix + name] = value
    return found


def merge(base: Tree, over: Tree) -> Tree:
    """`over` laid on `base`, section by section.

    A section whose `kind` changes (for data its `name`, for a recipe its `base`) starts empty:
    settings of one kind mean nothing to another. Prepared images are split as those they were made
    from.
    """
    merged = dict(base)
    for name, value in over.items():
        old = merged.get(name)
        if isinstance(value, dict) and isinstance(old, dict):
            changed = any(
                key in value and key in old and value[key] != old[key]
                for key in ("kind", "name", "base")
            )
            if changed and value.get("name") == "prepared":
                split = {key: old[key] for key in ("holdout", "images") if key in old}
                merged[name] = {**split, **value}
            else:
                merged[name] = dict(value) if changed else merge(old, value)
        else:
            merged[name] = value
    return merged


def settings_from_dict(tree: Mapping[str, Any]) -> Settings:
    """The inverse of `Settings.to_dict`; names left out keep their defaults."""
    workers = tree.get("workers")
    if isinstance(workers, dict) and workers.get("kind") == "processes":
        tree = {**tree, "workers": {**workers, "kind": "local"}}  # as earlier versions called it
    return _build(Settings, tree)


def _build(cls: type[T], tree: Mapping[str, Any]) -> T:
    """The settings that plain values make, or a `SettingsError` for the first that does not fit."""
    if cls not in _ADAPTERS:
        _ADAPTERS[cls] = TypeAdapter(cls)
    try:  # as JSON, since its lists are taken for tuples
        settings: T = _ADAPTERS[cls].validate_json(json.dumps(_plain(tree)))
        return settings
    except ValidationError as found:
        errors = found.errors(include_url=False)
    if texts := [e["loc"] for e in errors if e["type"] == "float_type" and _number(e["input"])]:
        tree = _plain(tree)
        for loc in texts:  # YAML reads 1e-3 as a text
            place: Any = tree
            for part in loc[:-1]:
                place = _inside(place, part)
            place[loc[-1]] = float(place[loc[-1]])
        return _build(cls, tree)
    errors.sort(key=lambda error: error["type"] != "unexpected_keyword_argument")
    if errors[0]["type"] == "value_error":  # what the settings' own checks say
        raise errors[0]["ctx"]["error"] from None
    raise SettingsError(_sentence(cls, tree, list(errors[0]["loc"]), "")) from None


def _plain(value: object, depth: int = 5) -> Any:
    """The value as JSON has it; what that cannot hold, or lies too deep, becomes what fits nowhere.

    YAML has dates, names that are no text, numbers of any size and lists that hold themselves;
    a path may hold bytes that are not UTF-8.
    """
    if isinstance(value, Mapping) and depth:
        return {str(name): _plain(item, depth - 1) for name, item in value.items()}
    if isinstance(value, list | tuple) and depth:
        return [_plain(item, depth - 1) for item in value]
    whole = isinstance(value, int) and abs(value) <= sys.float_info.max
    text = isinstance(value, str) and not any("\ud800" <= letter <= "\udfff" for letter in value)
    return value if whole or text or value is None or isinstance(value, float) else [None]


def _number(text: object) -> bool:
    try:
        return isinstance(text, str) and float(text) is not None
    except ValueError:
        return False


def _inside(value: Any, part: str | int) -> Any:
    """What lies under a part of a place; the value itself for the name of a kind."""
    try:
        return value[part]
    except (KeyError, IndexError, TypeError):
        return value


def _sentence(hint: Any, value: Any, loc: list[str | int], name: str) -> str:
    """What is wrong with a value of this type, or with what lies in it at a place."""
    origin, members = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:  # sections of several kinds
        kinds = {member.kind: member for member in typing.get_args(members[0])}
        if isinstance(value, Mapping) and (kind := value.get("kind")) not in list(kinds):
            return f"{name}.kind is {kind!r}: choose one of {', '.join(kinds)}"
        hint = kinds[value["kind"]] if isinstance(value, Mapping) else members[0]
        return _sentence(hint, value, loc[1:], name)
    if dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
        hints = typing.get_type_hints(hint, include_extras=True)
        part = str(loc[0]) if loc else ""
        full = f"{name}.{part}" if name else part
        if part not in hints:
            near = difflib.get_close_matches(part, hints, n=1)
            known = [known for known in hints if not known.startswith("_")]
            remedy = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
            return f"{_listed([full])} is not a setting: {remedy}"
        if part not in value:
            return f"{full} is missing: it has no default"
        return _sentence(hints[part], value[part], loc[1:], full)
    if origin is tuple and isinstance(value, list | tuple):
        if members[-1] is Ellipsis:
            return _sentence(members[0], value[int(loc[0])], loc[1:], name)
        if len(value) != len(members):
            return f"{name} has the item {value!r}: give {len(members)} values in each"
        return _sentence(members[int(loc[0])], value[int(loc[0])], loc[1:], name)
    if origin is Literal:
        return f"{name} is {value!r}: choose {' or '.join(map(str, members))}"
    return f"{name} is {value!r}: give {_words(hint)}"


def _words(hint: Any) -> str:
    """What a value of this type is called in a sentence."""
    if typing.get_origin(hint) in (Union, types.UnionType):
        return " or ".join(map(_words, typing.get_args(hint)))
    names = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
    names |= {type(None): "null", tuple: "a list in square brackets"}
    return names.get(typing.get_origin(hint) or hint, "a section of `name: value` lines")
