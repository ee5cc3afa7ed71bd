"""`--group.field VALUE` for every field of a recipe: from a pydantic model to options, and back.

The model is mirrored as plain dataclasses that tyro turns into grouped help and typed parsing; the values go
back through the model's own validation. Where a field holds one of several models (told apart by `kind`),
`--data.tokenizer byte` chooses which, and the options below it become that model's; a model that may be absent
is switched with `--model.moe on` or `off`. Where a field holds several models, its option takes them as JSON.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, TypeVar, cast, get_args, get_origin, get_type_hints

import tyro
from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from ourospec.cli.options import flags_of, refuse_unknown, values_of
from ourospec.cli.suggest import did_you_mean, normal
from ourospec.errors import ConfigError

KIND = "kind"
OFF, ON = "off", "on"
Kinds = Mapping[str, type[BaseModel] | None]
"""What may stand in a field, by the word that chooses it; None for nothing at all."""
REQUIRED = dataclasses.MISSING
Model = TypeVar("Model", bound=BaseModel)


@dataclasses.dataclass(frozen=True)
class Leaf:
    """One option."""

    flag: str
    info: FieldInfo
    default: Any


@dataclasses.dataclass(frozen=True)
class Group:
    """One model: its fields by name (never its kind), and which other kinds could stand in its place."""

    path: str
    """Dotted, "" at the top."""
    model: type[BaseModel] | None
    """None where the model is switched off."""
    description: str
    kinds: Kinds
    fields: Mapping[str, Leaf | Group]


def parse_overrides(
    default: Model,
    arguments: Sequence[str],
    *,
    prog: str,
    hidden: Sequence[str] = (),
    extras: type | None = None,
) -> tuple[Model, Any]:
    """Read options over a model.

    Args:
        default: gives type and defaults.
        arguments: `--group.field VALUE ...`, in any order.
        prog: the command, for help and advice.
        hidden: top-level fields that the command line leaves alone.
        extras: a dataclass of further options, shown first.

    Returns:
        The model with the overrides, and an instance of `extras` (or None).

    Raises:
        ConfigError: an option or kind that does not exist, or a value out of bounds.
    """
    group = grow(type(default), default, values_of(arguments), hidden=hidden)
    arguments = short_kinds(group, arguments)
    own = {f.name: f for f in dataclasses.fields(extras)} if extras else {}
    flags = dict(describe_flags(group)) | {as_flag(name): "" for name in own}
    refuse_other_kinds(group, arguments, flags)
    refuse_unknown(arguments, flags, f"{prog} --help")
    refuse_unknown_choices(group, values_of(arguments))
    mirror = make_mirror(group, extras)
    parsed = tyro.cli(
        mirror,
        args=list(arguments),
        prog=prog,
        description=group.description,
        config=(tyro.conf.FlagCreatePairsOff,),
    )
    chosen = extras(**{name: getattr(parsed, name) for name in own}) if extras else None
    values = {name: getattr(default, name) for name in hidden} | read_back(group, parsed)
    return validate(type(default), values, prog), chosen


def grow(
    model: type[BaseModel] | None,
    default: BaseModel | None,
    chosen: Mapping[str, str],
    path: str = "",
    kinds: Kinds | None = None,
    hidden: Sequence[str] = (),
    about: str | None = None,
) -> Group:
    """The tree of options of a model, with the kinds that the command line chose already in place."""
    fields: dict[str, Leaf | Group] = {}
    for name, info in model.model_fields.items() if model else ():
        if name in hidden or (kinds and name == KIND):
            continue
        value = getattr(default, name) if default is not None else default_of(info)
        where = f"{path}.{name}" if path else name
        choices = kinds_of(info)
        if choices:
            word, value = choose(where, choices, value, chosen)
            fields[name] = grow(choices[word], value, chosen, where, choices, about=info.description)
        elif is_model(info.annotation):
            inner = value if isinstance(value, BaseModel) else None
            kind = cast(type[BaseModel], info.annotation)
            fields[name] = grow(kind, inner, chosen, where, about=info.description)
        else:
            fields[name] = Leaf(as_flag(where), info, value)
    description = about or inspect.cleandoc((model and model.__doc__) or "")
    return Group(path, model, description, kinds or {}, fields)


def kinds_of(info: FieldInfo) -> dict[str, type[BaseModel] | None]:
    """What may stand in a field that is a union of models or an optional model. Empty for any other field."""
    members = get_args(info.annotation)
    models = [member for member in members if is_model(member)]
    if info.discriminator == KIND:
        return {model.model_fields[KIND].default: model for model in models}
    if len(models) == 1 and set(members) == {models[0], type(None)}:
        return {OFF: None, ON: models[0]}
    return {}


def short_kinds(group: Group, arguments: Sequence[str]) -> list[str]:
    """The arguments with --data.tokenizer.kind, as recipe.json has it, in its shorter form."""
    known = {f"{part.path}.{KIND}": part.path for part in groups(group) if part.kinds}
    short = []
    for argument in arguments:
        flag, equals, value = argument.partition("=")
        path = known.get(normal(flag)) if flag.startswith("--") else None
        short.append(f"{as_flag(path)}{equals}{value}" if path else argument)
    return short


def groups(group: Group) -> Iterator[Group]:
    """A group and all in it."""
    yield group
    for field in group.fields.values():
        if isinstance(field, Group):
            yield from groups(field)


def choose(
    path: str, choices: Kinds, default: Any, chosen: Mapping[str, str]
) -> tuple[str, BaseModel | None]:
    """The kind asked for at a path, and the values it starts from (None: the kind's own defaults)."""
    kept = next(
        (k for k, m in choices.items() if (m and type(default) is m) or m is default), next(iter(choices))
    )
    asked = chosen.get(f"{path}.{KIND}", chosen.get(path, kept))
    if asked not in choices:
        advice = f"{did_you_mean(asked, list(choices))}Choose among: {', '.join(choices)}"
        raise ConfigError(f"{as_flag(path)} has no kind {asked!r}.", advice)
    return asked, default if asked == kept and isinstance(default, BaseModel) else None


def default_of(info: FieldInfo) -> Any:
    """A field's own default, REQUIRED where there is none."""
    return REQUIRED if info.is_required() else info.get_default(call_default_factory=True)


def as_flag(*path: str) -> str:
    """The option of a field, as help shows it; underscores are understood too."""
    return f"--{'.'.join(path)}".replace("_", "-")


def is_model(annotation: Any) -> bool:
    """Whether a type is a pydantic model."""
    return inspect.isclass(annotation) and issubclass(annotation, BaseModel)


def holds_model(annotation: Any) -> bool:
    """Whether models lie somewhere inside a type (a tuple of them)."""
    return is_model(annotation) or any(holds_model(part) for part in get_args(annotation))


def describe_flags(group: Group) -> Iterator[tuple[str, str]]:
    """Every option under a group with its description."""
    for part in groups(group):
        if part.kinds:
            yield as_flag(part.path), ""
        for field in part.fields.values():
            if isinstance(field, Leaf):
                yield field.flag, field.info.description or ""


def refuse_other_kinds(group: Group, arguments: Sequence[str], flags: Mapping[str, str]) -> None:
    """Raise ConfigError for an option that another kind has, naming that kind."""
    known = {normal(flag) for flag in flags}
    for flag in flags_of(arguments):
        path, _, name = normal(flag).rpartition(".")
        there = find_group(group, path)
        if normal(flag) in known or there is None:
            continue
        owners = [kind for kind, model in there.kinds.items() if model and name in model.model_fields]
        if owners:
            here = kind_of(there)
            raise ConfigError(
                f"{flag} belongs to {as_flag(path)} {' or '.join(owners)}, but {here} is chosen.",
                f"Say: {as_flag(path)} {owners[0]} {flag} VALUE",
            )


def refuse_unknown_choices(group: Group, given: Mapping[str, str]) -> None:
    """Raise ConfigError for a word that an option with a fixed choice of words does not know."""
    for part in groups(group):
        for field in part.fields.values():
            if isinstance(field, Leaf) and get_origin(field.info.annotation) is Literal:
                words = [str(word) for word in get_args(field.info.annotation)]
                word = given.get(normal(field.flag))
                if word is not None and word not in words:
                    advice = f"{did_you_mean(word, words)}One of: {', '.join(words)}"
                    raise ConfigError(f"{field.flag} {word}: no such choice.", advice)


def kind_of(group: Group) -> str:
    """The kind that stands in a group."""
    return next(kind for kind, model in group.kinds.items() if model is group.model)


def find_group(group: Group, path: str) -> Group | None:
    """The group at a dotted path."""
    for part in path.split(".") if path else ():
        inner = group.fields.get(part)
        if not isinstance(inner, Group):
            return None
        group = inner
    return group


def make_mirror(group: Group, extras: type | None = None) -> type:
    """The dataclass that tyro reads a group from."""
    fields: list[tuple[str, Any, dataclasses.Field]] = []
    hints = get_type_hints(extras, include_extras=True) if extras else {}
    for extra in dataclasses.fields(extras) if extras else ():
        own: Any = dataclasses.field(default=extra.default)
        fields.append((extra.name, hints[extra.name], own))
    if group.kinds:
        fields.append(mirror_kind(group))
    for name, field in group.fields.items():
        if isinstance(field, Group):
            fields.append((name, make_mirror(field), dataclasses.field()))
        else:
            shown = tyro.conf.arg(help=explain(field.info))
            place: Any = dataclasses.field(default=shown_value(field))
            fields.append((name, Annotated[shown_type(field.info.annotation), shown], place))
    mirror = dataclasses.make_dataclass(group.model.__name__ if group.model else OFF, fields, kw_only=True)
    mirror.__doc__ = first_paragraph(group.description)
    return mirror


def mirror_kind(group: Group) -> tuple[str, Any, dataclasses.Field]:
    """The option that chooses a kind, its help naming what each kind is."""
    each = [
        f"{kind}: {first_paragraph(model.__doc__)}" if model and model.__doc__ else kind
        for kind, model in group.kinds.items()
    ]
    shown = tyro.conf.arg(name=group.path, prefix_name=False, help="\n".join(each))
    place: Any = dataclasses.field(default=kind_of(group))
    return KIND, Annotated[Literal[tuple(group.kinds)], shown], place  # pyright: ignore


def shown_type(annotation: Any) -> Any:
    """Booleans are written as JSON writes them, several models as JSON altogether."""
    return str if holds_model(annotation) else Literal["true", "false"] if annotation is bool else annotation


def shown_value(field: Leaf) -> Any:
    """A default in the type that `shown_type` gives it."""
    if field.default is not REQUIRED and holds_model(field.info.annotation):
        return several(field.info).dump_json(field.default).decode()
    return str(field.default).lower() if isinstance(field.default, bool) else field.default


def explain(info: FieldInfo) -> str:
    """A field's description with its bounds."""
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    bounds = [
        f"{sign} {getattr(limit, name)}"
        for limit in info.metadata
        for name, sign in signs.items()
        if getattr(limit, name, None) is not None
    ]
    text = " ".join((info.description or "").split())
    bounds += ["as JSON"] if holds_model(info.annotation) else []
    return f"{text} ({', '.join(bounds)})" if bounds else text


def first_paragraph(text: str) -> str:
    """The first paragraph of a docstring, on one line."""
    return " ".join(inspect.cleandoc(text).split("\n\n")[0].split())


def read_back(group: Group, parsed: Any) -> dict[str, Any]:
    """The values of a parsed mirror as the model wants them."""
    values: dict[str, Any] = (
        {KIND: parsed.kind} if KIND in (group.model.model_fields if group.model else ()) else {}
    )
    for name, field in group.fields.items():
        value = getattr(parsed, name)
        if isinstance(field, Group):
            values[name] = read_back(field, value) if field.model else None
        elif field.info.annotation is bool:
            values[name] = value == "true"
        elif holds_model(field.info.annotation):
            values[name] = read_json(field, value)
        else:
            values[name] = value
    return values


def read_json(field: Leaf, text: str) -> Any:
    """Several models from JSON.

    Raises:
        ConfigError: naming what in it is refused, and why.
    """
    try:
        return several(field.info).validate_json(text)
    except ValidationError as error:
        lines = [
            f"{field.flag}: {'.'.join(map(str, problem['loc'])) or 'the text'}: {problem['msg']}"
            for problem in error.errors()
        ]
        remedy = f"It takes JSON as it stands in recipe.json: {field.flag} '[...]'"
        raise ConfigError("\n".join(lines), remedy) from None


def several(info: FieldInfo) -> TypeAdapter:
    """What reads and writes the value of a field that holds several models."""
    return TypeAdapter(cast(Any, info.annotation))


def validate(model: type[Model], values: Mapping[str, Any], prog: str) -> Model:
    """The model of these values.

    Raises:
        ConfigError: naming every option whose value is refused, and why.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        lines = [explain_refusal(values, problem["loc"], problem["msg"]) for problem in error.errors()]
        raise ConfigError("\n".join(lines), f"What each option takes: {prog} --help") from None


def explain_refusal(values: Mapping[str, Any], location: tuple[int | str, ...], why: str) -> str:
    """One line: the option, the value it was given, and why that cannot be."""
    path: list[str] = []
    value: Any = values
    for part in location:
        # Pydantic puts the kind into the location of a union's field; it is no part of the option's name.
        if isinstance(value, Mapping) and part in value:
            path.append(str(part))
            value = value[part]
    why = why.removeprefix("Value error, ")
    given = "" if isinstance(value, Mapping) else f" {value}"
    return f"{as_flag(*path)}{given}: {why}" if path else why
