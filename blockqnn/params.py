"""Settings from params.yaml, a profile and `--set` into the classes of `blockqnn.settings`."""

import dataclasses
import difflib
import json
import sys
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar, Union

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from blockqnn.errors import SettingsError
from blockqnn.settings import Plan, Settings
from blockqnn.settings.schema import Params

Tree = dict[str, Any]

T = TypeVar("T")

SECTIONS = tuple(field.name for field in dataclasses.fields(Params))
"""Names of the sections of a params file; dvc.yaml alone reads `pipeline` and `imagenet`."""

READERS: dict[type, TypeAdapter[Any]] = {cls: TypeAdapter(cls) for cls in (Settings, Plan)}
"""Pydantic's readers of settings by class; each builds itself at its first use, in 60 ms."""


def load_settings(
    params: Path = Path("params.yaml"),
    profile: str | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Settings:
    """Return the settings of a search: section `search` of `params`, overridden by
    `profiles/<profile>.yaml` beside it, then by `overrides`.

    `overrides` maps dotted names to values, say `{"recipe.epochs": 3}`. Raises `SettingsError` for
    files that cannot be read, unknown names and values that cannot be used.
    """
    search = _section(_tree(params, profile), "search", params)
    return settings_from_dict(merge(search, _branches(overrides)))


def data_of_search(params: Path = Path("params.yaml"), profile: str | None = None) -> str:
    """Return the data set of a search without overrides. Raises `SettingsError`."""
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
    """Return the plan of final trainings on one data set: `training.<data>` of `params`, overridden
    as in `load_settings`.

    Its `recipe` is the name of one under `recipes`, or a section of settings whose `base` is that
    name. Raises `SettingsError`.
    """
    tree = _tree(params, profile)
    plans = _section(tree, "training", params)
    if data not in plans:
        raise SettingsError(f"data is {data!r}: choose one of {_listed(plans)} (section training)")
    shared = {"evaluation": tree.get("evaluation") or {}, "recipe": {}}
    plan = merge(merge(shared, _section(plans, data, params)), _branches(overrides))
    return plan_from_dict({**plan, "recipe": _recipe(plan["recipe"], tree)})


def plan_from_dict(tree: Mapping[str, Any]) -> Plan:
    """Return the plan that `Plan.to_dict` described. Raises `SettingsError`."""
    return _build(Plan, tree)


def profiles(params: Path = Path("params.yaml")) -> list[str]:
    """Return the names of the profiles beside a params file."""
    return sorted(path.stem for path in (params.parent / "profiles").glob("*.yaml"))


def plans(params: Path = Path("params.yaml")) -> list[str]:
    """Return the names of the plans of final trainings. Raises `SettingsError`."""
    return sorted(_section(_tree(params, None), "training", params))


def _tree(params: Path, profile: str | None) -> Tree:
    """Return all sections of a params file with a profile laid over them."""
    tree = _read(params)
    if profile is not None:
        if profile not in (known := profiles(params)):
            listed = ", ".join(known) or "none"
            raise SettingsError(f"profile is {profile!r}: choose one of {listed}")
        tree = merge(tree, _read(params.parent / "profiles" / f"{profile}.yaml"))
    for name in tree:
        if name not in SECTIONS:
            remedy = _meant(str(name), SECTIONS)
            raise SettingsError(f"{_listed([name])} is not a section of {params}: {remedy}")
    return tree


def _section(tree: Tree, name: str, params: Path) -> Tree:
    section = tree.get(name)
    if not isinstance(section, dict):
        raise SettingsError(f"{name} is {section!r} in {params}: give a section of settings")
    return section


def _branches(overrides: Mapping[str, Any] | None) -> Tree:
    """Return overrides by dotted name as nested settings."""
    changes: Tree = {}
    for name, value in (overrides or {}).items():
        branch: Any = value
        for part in reversed(name.split(".")):
            branch = {part: branch}
        changes = merge(changes, branch)
    return changes


def _recipe(section: object, tree: Tree) -> object:
    """Return a plan's recipe with the settings of its base, if it has one, below its own."""
    if not isinstance(section, dict) or "base" not in section:
        return section
    recipes = tree.get("recipes")
    known = recipes if isinstance(recipes, dict) else {}
    own = {name: value for name, value in section.items() if name != "base"}
    base = next((recipe for name, recipe in known.items() if name == section["base"]), None)
    if not isinstance(base, dict):
        raise SettingsError(
            f"recipe is {section['base']!r}: choose one of {_listed(known)} (section recipes)"
        )
    return {**base, **own}


def _listed(names: Iterable[object]) -> str:
    """Return names that somebody wrote into a file, of whatever type, in one line."""
    return ", ".join(" ".join(str(name).split()) for name in names)


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
    """Return nested settings by dotted name, such as `recipe.epochs`, which `--set` takes."""
    found: Tree = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{name}.")
        else:
            found[prefix + name] = value
    return found


def merge(base: Tree, over: Tree) -> Tree:
    """Return `over` laid on `base`, section by section; a text as `recipe` is the recipe's `base`.

    A section whose `kind` changes (for data its `name`, for a recipe its `base`) starts empty:
    settings of one kind mean nothing to another. Prepared images are split as those they were made
    from.
    """
    merged = dict(base)
    for name, value in over.items():
        old = merged.get(name)
        if name == "recipe":
            old, value = ({"base": x} if isinstance(x, str) else x for x in (old, value))
        if isinstance(value, dict) and isinstance(old, dict):
            both = {"kind", "name", "base"} & value.keys() & old.keys()
            changed = any(value[key] != old[key] for key in both)
            if changed and value.get("name") == "prepared":
                split = {key: old[key] for key in ("holdout", "images") if key in old}
                merged[name] = {**split, **value}
            else:
                merged[name] = dict(value) if changed else merge(old, value)
        else:
            merged[name] = value
    return merged


def settings_from_dict(tree: Mapping[str, Any]) -> Settings:
    """Return the settings that `Settings.to_dict` described; names left out have their defaults.

    Raises `SettingsError`.
    """
    workers = tree.get("workers")
    if isinstance(workers, dict) and workers.get("kind") == "processes":
        tree = {**tree, "workers": {**workers, "kind": "local"}}  # as earlier versions called it
    return _build(Settings, tree)


def _build(cls: type[T], tree: Mapping[str, Any]) -> T:
    """Return the settings that plain values make; raises `SettingsError` for the first misfit."""
    try:  # as JSON, since its lists are taken for tuples
        settings: T = READERS[cls].validate_json(json.dumps(_plain(tree)))
        return settings
    except ValidationError as found:
        errors = found.errors(include_url=False)
    error = min(errors, key=lambda error: error["type"] != "unexpected_keyword_argument")
    texts = [e["loc"] for e in errors if e["type"] == "float_type" and _is_number(e["input"])]
    if texts and error["type"] != "unexpected_keyword_argument":  # YAML reads 1e-3 as a text
        tree = _plain(tree)
        for *place, last in texts:
            section: Any = tree
            for part in place:  # the kind of a section is no place in it
                section = section[part] if isinstance(part, int) else section.get(part, section)
            section[last] = float(section[last])
        return _build(cls, tree)
    if error["type"] == "value_error":  # what the settings' own checks say
        raise error["ctx"]["error"] from None
    raise SettingsError(_refusal(cls, tree, error)) from None


def _plain(value: object, depth: int = 5) -> Any:
    """Return a value as JSON has it, or what fits nowhere for one that JSON cannot hold.

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


def _is_number(text: object) -> bool:
    try:
        return isinstance(text, str) and float(text) is not None
    except ValueError:
        return False


def _refusal(cls: type, tree: Any, error: ErrorDetails) -> str:
    """Say what is wrong with settings, by the place and the type of an error of pydantic's."""
    hint: Any = cls
    value, names, known = tree, list[str](), list[str]()
    for part in error["loc"]:
        members = typing.get_args(hint)
        if dataclasses.is_dataclass(hint):
            names.append(str(part))
            known = [field.name for field in dataclasses.fields(hint)]
            hints = typing.get_type_hints(hint, include_extras=True)
            hint, value = hints.get(names[-1]), value.get(part)
        elif isinstance(value, list | tuple) and isinstance(part, int) and part < len(value):
            hint, value = members[0 if members[-1] is Ellipsis else part], value[part]
        elif typing.get_origin(hint) is Annotated:
            hint = _kinds(hint)[part]
    name = ".".join(names)
    match error["type"]:
        case "unexpected_keyword_argument":
            return f"{_listed([name])} is not a setting: {_meant(names[-1], known)}"
        case "union_tag_invalid" | "union_tag_not_found":
            kinds = ", ".join(_kinds(hint))
            return f"{name}.kind is {value.get('kind')!r}: choose one of {kinds}"
        case "literal_error":
            return f"{name} is {value!r}: choose {error['ctx']['expected'].replace(chr(39), '')}"
        case "missing" if isinstance(error["loc"][-1], str):
            return f"{name} is missing: it has no default"
        case "missing" | "too_long":
            wanted = len(typing.get_args(hint))
            return f"{name} has the item {value!r}: give {wanted} values in each"
    return f"{name} is {value!r}: give {_words(hint)}"


def _kinds(hint: Any) -> dict[Any, Any]:
    """Return the classes of a section that has several kinds, by kind."""
    return {cls.kind: cls for cls in typing.get_args(typing.get_args(hint)[0])}


def _meant(name: str, known: Sequence[str]) -> str:
    """Return the remedy for a name that is not known."""
    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"


def _words(hint: Any) -> str:
    """Return what a value of this type is called in a sentence."""
    if typing.get_origin(hint) in (Union, types.UnionType):
        return " or ".join(map(_words, typing.get_args(hint)))
    names = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
    names |= {type(None): "null", tuple: "a list in square brackets"}
    return names.get(typing.get_origin(hint) or hint, "a section of `name: value` lines")
