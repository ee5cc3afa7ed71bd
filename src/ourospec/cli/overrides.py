"""`--group.field VALUE` for every field of a recipe: from a pydantic model to options, and back.

The model is mirrored as plain dataclasses that tyro turns into grouped help and typed parsing; the values go
back through the model's own validation. Where a field holds one of several models (told apart by `kind`),
`--data.tokenizer byte` chooses which, and the options below it become that model's.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

import tyro
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from ourospec.cli.options import flags_of, refuse_unknown, values_of
from ourospec.cli.suggest import did_you_mean, normal
from ourospec.errors import ConfigError

KIND = "kind"
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
    """One model: its fields by name, and which other kinds could stand in its place."""

    path: str
    """Dotted, "" at the top."""
    model: type[BaseModel]
    description: str
    kinds: Mapping[str, type[BaseModel]]
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
    model: type[BaseModel],
    default: BaseModel | None,
    chosen: Mapping[str, str],
    path: str = "",
    kinds: Mapping[str, type[BaseModel]] | None = None,
    hidden: Sequence[str] = (),
) -> Group:
    """The tree of options of a model, with the kinds that the command line chose already in place."""
    fields: dict[str, Leaf | Group] = {}
    for name, info in model.model_fields.items():
        if name in hidden:
            continue
        value = getattr(default, name) if default is not None else default_of(info)
        where = f"{path}.{name}" if path else name
        choices = kinds_of(info)
        if choices:
            kind, value = choose(where, choices, value, chosen)
            fields[name] = grow(choices[kind], value, chosen, where, choices)
        elif is_model(info.annotation):
            inner = value if isinstance(value, BaseModel) else None
            fields[name] = grow(info.annotation, inner, chosen, where)  # pyright: ignore[reportArgumentType]
        elif not holds_model(info.annotation):
            fields[name] = Leaf(as_flag(where), info, value)
    return Group(path, model, inspect.cleandoc(model.__doc__ or ""), kinds or {}, fields)


def kinds_of(info: FieldInfo) -> dict[str, type[BaseModel]]:
    """What may stand in a field that is a union of models: kind -> model. Empty for any other field."""
    members = [member for member in get_args(info.annotation) if is_model(member)]
    if info.discriminator != KIND or not members:
        return {}
    return {member.model_fields[KIND].default: member for member in members}


def choose(
    path: str, choices: Mapping[str, type[BaseModel]], default: Any, chosen: Mapping[str, str]
) -> tuple[str, BaseModel | None]:
    """The kind asked for at a path, and the values it starts from (None: the kind's own defaults)."""
    kept = next((kind for kind, model in choices.items() if type(default) is model), next(iter(choices)))
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
    """Whether models lie somewhere inside a type (a tuple of them): too much for an option."""
    return is_model(annotation) or any(holds_model(part) for part in get_args(annotation))


def describe_flags(group: Group) -> Iterator[tuple[str, str]]:
    """Every option under a group with its description."""
    if group.kinds:
        yield as_flag(group.path), ""
    for name, field in group.fields.items():
        if isinstance(field, Leaf):
            # A kind is chosen by the shorter --data.tokenizer: both work, one is suggested.
            if not (name == KIND and group.kinds):
                yield field.flag, field.info.description or ""
        else:
            yield from describe_flags(field)
    if group.kinds:
        yield as_flag(group.path, KIND), ""


def refuse_other_kinds(group: Group, arguments: Sequence[str], flags: Mapping[str, str]) -> None:
    """Raise ConfigError for an option that another kind has, naming that kind."""
    known = {normal(flag) for flag in flags}
    for flag in flags_of(arguments):
        path, _, name = normal(flag).rpartition(".")
        there = find_group(group, path)
        if normal(flag) in known or there is None:
            continue
        owners = [kind for kind, model in there.kinds.items() if name in model.model_fields]
        if owners:
            here = next(kind for kind, model in there.kinds.items() if model is there.model)
            raise ConfigError(
                f"{flag} belongs to {as_flag(path)} {' or '.join(owners)}, but {here} is chosen.",
                f"Say: {as_flag(path)} {owners[0]} {flag} VALUE",
            )


def refuse_unknown_choices(group: Group, given: Mapping[str, str]) -> None:
    """Raise ConfigError for a word that an option with a fixed choice of words does not know."""
    for name, field in group.fields.items():
        if isinstance(field, Group):
            refuse_unknown_choices(field, given)
        elif name != KIND and get_origin(field.info.annotation) is Literal:
            words = [str(word) for word in get_args(field.info.annotation)]
            word = given.get(normal(field.flag))
            if word is not None and word not in words:
                advice = did_you_mean(word, words)
                raise ConfigError(
                    f"{field.flag} {word}: no such choice.", f"{advice}One of: {', '.join(words)}"
                )


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
    for extra in dataclasses.fields(extras) if extras else ():
        fields.append((extra.name, extra.type, dataclasses.field(default=extra.default)))
    for name, field in group.fields.items():
        if isinstance(field, Group):
            fields.append((name, make_mirror(field), dataclasses.field()))
        elif name == KIND:
            fields.append(mirror_kind(group, field))
        else:
            shown = tyro.conf.arg(help=explain(field.info))
            place: Any = dataclasses.field(default=shown_value(field.default))
            fields.append((name, Annotated[shown_type(field.info.annotation), shown], place))
    mirror = dataclasses.make_dataclass(group.model.__name__, fields, kw_only=True)
    mirror.__doc__ = first_paragraph(group.description)
    return mirror


def mirror_kind(group: Group, field: Leaf) -> tuple[str, Any, dataclasses.Field]:
    """The option that chooses a kind, its help naming what each kind is."""
    kinds = tuple(group.kinds) or (field.default,)
    each = [
        f"{kind}: {first_paragraph(model.__doc__)}" if model.__doc__ else kind
        for kind, model in group.kinds.items()
    ]
    here = next((kind for kind, model in group.kinds.items() if model is group.model), field.default)
    aliases = [as_flag(group.path)] if group.kinds else []
    shown = tyro.conf.arg(help="\n".join(each), aliases=aliases)
    return KIND, Annotated[Literal[kinds], shown], dataclasses.field(default=here)  # pyright: ignore


def shown_type(annotation: Any) -> Any:
    """Booleans are written as JSON writes them."""
    return Literal["true", "false"] if annotation is bool else annotation


def shown_value(value: Any) -> Any:
    """A default in the type that `shown_type` gives it."""
    return str(value).lower() if isinstance(value, bool) else value


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
    return f"{text} ({', '.join(bounds)})" if bounds else text


def first_paragraph(text: str) -> str:
    """The first paragraph of a docstring, on one line."""
    return " ".join(inspect.cleandoc(text).split("\n\n")[0].split())


def read_back(group: Group, parsed: Any) -> dict[str, Any]:
    """The values of a parsed mirror as the model wants them."""
    values: dict[str, Any] = {}
    for name, field in group.fields.items():
        value = getattr(parsed, name)
        if isinstance(field, Group):
            values[name] = read_back(field, value)
        elif field.info.annotation is bool:
            values[name] = value == "true"
        else:
            values[name] = value
    return values


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
