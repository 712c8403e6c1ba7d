"""Settings from params.yaml, a profile and `--set` into the classes of `blockqnn.settings`."""

import dataclasses
import difflib
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, Union, cast

from blockqnn.errors import SettingsError
from blockqnn.settings import Plan, Settings

Tree = dict[str, Any]

SECTIONS = ("search", "recipes", "training", "evaluation", "pipeline", "imagenet")
"""Of a params file; the last two are read by dvc.yaml alone."""

OLD_KINDS = {"workers.processes": "local"}
"""Kinds that journals and params files of earlier versions call otherwise."""


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
    plan = _build(Plan, tree, "")
    assert isinstance(plan, Plan)
    return plan


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
    settings = _build(Settings, tree, "")
    assert isinstance(settings, Settings)
    return settings


def _build(cls: type, tree: object, where: str) -> object:
    if not isinstance(tree, Mapping):
        raise SettingsError(f"{where} is {tree!r}: give a section of `name: value` lines")
    hints = typing.get_type_hints(cls)
    values = {}
    for name, value in tree.items():
        full = f"{where}.{name}" if where else str(name)
        if name not in hints:
            near = difflib.get_close_matches(str(name), hints, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(hints)}"
            raise SettingsError(f"{_listed([full])} is not a setting: {hint}")
        values[name] = _convert(hints[name], value, full)
    for required in dataclasses.fields(cls):
        bare = required.default is required.default_factory is dataclasses.MISSING
        if bare and required.name not in values:
            full = f"{where}.{required.name}" if where else required.name
            raise SettingsError(f"{full} is missing: it has no default")
    return cls(**values)


def _convert(hint: Any, value: object, name: str) -> object:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        return _build(cast(Any, hint), value, name)
    if origin in (Union, types.UnionType):
        return _convert_union(arguments, value, name)
    if origin is Literal:
        if value not in arguments:
            raise SettingsError(f"{name} is {value!r}: choose {' or '.join(map(str, arguments))}")
        return value
    if origin is tuple:
        return _convert_tuple(arguments, value, name)
    if hint is float and isinstance(value, str):  # YAML reads 1e-3 as text
        try:
            return float(value)
        except ValueError:
            pass
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            pass
    if type(value) is hint:
        return value
    raise SettingsError(f"{name} is {value!r}: give {_words(hint)}")


def _convert_union(members: tuple[Any, ...], value: object, name: str) -> object:
    sections = [member for member in members if dataclasses.is_dataclass(member)]
    if sections:
        if not isinstance(value, Mapping):
            raise SettingsError(f"{name} is {value!r}: give a section of `name: value` lines")
        by_kind: dict[str, Any] = {_kind(section): section for section in sections}
        kind = value.get("kind")
        if isinstance(kind, str) and f"{name}.{kind}" in OLD_KINDS:
            kind = OLD_KINDS[f"{name}.{kind}"]
            value = {**value, "kind": kind}
        if not isinstance(kind, str) or kind not in by_kind:
            raise SettingsError(f"{name}.kind is {kind!r}: choose one of {', '.join(by_kind)}")
        return _build(by_kind[kind], value, name)
    if value is None and type(None) in members:
        return None
    failure = None
    for member in members:
        if member is not type(None):
            try:
                return _convert(member, value, name)
            except SettingsError as error:
                failure = failure or error
    wanted = " or ".join(_words(member) for member in members)
    raise SettingsError(f"{name} is {value!r}: give {wanted}") from failure


def _kind(section: Any) -> str:
    (default,) = (f.default for f in dataclasses.fields(section) if f.name == "kind")
    return str(default)


def _convert_tuple(arguments: tuple[Any, ...], value: object, name: str) -> object:
    if not isinstance(value, list | tuple):
        raise SettingsError(f"{name} is {value!r}: give a list in square brackets")
    if arguments[-1] is Ellipsis:
        return tuple(_convert(arguments[0], item, name) for item in value)
    if len(value) != len(arguments):
        raise SettingsError(f"{name} has the item {value!r}: give {len(arguments)} values in each")
    return tuple(_convert(hint, item, name) for hint, item in zip(arguments, value, strict=True))


def _words(hint: Any) -> str:
    names = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
    if typing.get_origin(hint) is tuple:
        return "a list in square brackets"
    return "null" if hint is type(None) else names.get(hint, str(hint))
