"""The whole recipe, and how a mapping becomes one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, get_args

from pydantic import Field, ValidationError, field_validator, model_validator

from uncollapse.config.adversarial import DiscriminatorConfig
from uncollapse.config.base import Section
from uncollapse.config.condition import ConditionConfig
from uncollapse.config.latents import LatentConfig
from uncollapse.config.pieces import (
    DataConfig,
    DecoderConfig,
    EncoderConfig,
    RecurrentEncoderConfig,
)
from uncollapse.config.priors import MixtureConfig
from uncollapse.config.training import (
    JointStrategyConfig,
    ObjectiveConfig,
    StrategyConfig,
    TrainingConfig,
)
from uncollapse.errors import UserError, unknown_name

# pydantic speaks of Python where these are about YAML
PLAIN = dict.fromkeys(
    ("model_type", "model_attributes_type", "dict_type"), "input should be a section of keys"
) | {
    "tuple_type": "input should be a list",
    "too_short": "the list should not be empty",
    "bool_parsing": "input should be true or false",
    "bool_type": "input should be true or false",
}


class Recipe(Section):
    """A whole system.

    ``latents`` may be empty: a language model is a legal model. ``published`` holds, by
    corpus, the figures that its source prints and that it should approach.
    """

    name: str
    summary: str
    source: str
    published: dict[str, dict[str, float]] = Field(default_factory=dict)
    data: DataConfig = DataConfig()
    encoder: EncoderConfig | None = None
    condition: ConditionConfig | None = None
    latents: dict[str, LatentConfig] = Field(default_factory=dict)
    decoder: DecoderConfig
    discriminator: DiscriminatorConfig | None = None
    objective: ObjectiveConfig = ObjectiveConfig()
    strategy: StrategyConfig = JointStrategyConfig()
    training: TrainingConfig = TrainingConfig()

    @field_validator("latents", mode="before")
    @classmethod
    def _null_is_none(cls, value: Any) -> Any:
        if value is None:
            return {}
        if not isinstance(value, dict):
            return value
        # a recipe that extends another takes a latent away by null
        return {name: latent for name, latent in value.items() if latent is not None}

    @field_validator("latents")
    @classmethod
    def _plain_names(cls, latents: dict[str, LatentConfig]) -> dict[str, LatentConfig]:
        for name in latents:  # they become parts of parameter names and of metric names
            if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", name):
                raise ValueError(
                    f"a latent's name is a letter, then letters, digits, _ or -: {name!r}"
                )
        return latents

    @model_validator(mode="after")
    def _encoder_if_latent(self) -> Recipe:
        if self.latents and self.encoder is None:
            raise ValueError("latents need an encoder")
        if not self.latents and self.encoder is not None:
            raise ValueError("an encoder needs a latent to feed")
        if self.latents and not self.decoder.sees_z:
            raise ValueError("the decoder must see z: set decoder.every_input")
        return self

    @model_validator(mode="after")
    def _condition_has_its_context(self) -> Recipe:
        if self.condition is None:
            if self.data.context_turns:
                raise ValueError("data.context_turns: nothing reads a context without condition")
            asking = {n: part.conditional for n, part in self.latents.items() if part.conditional}
            for name, key in asking.items():
                raise ValueError(f"{key} of latent {name} needs a condition")
            if getattr(self.decoder, "attention", False):
                raise ValueError("decoder.attention needs a condition")
            return self
        if not self.data.context_turns:
            raise ValueError("a condition needs turns to read: set data.context_turns")
        if self.condition.encoder is None and self.encoder is None:
            raise ValueError("condition.encoder is missing, and there is no other encoder")
        for name, latent in self.latents.items():
            if latent.readout == "turns" and not self.condition.posterior:
                raise ValueError(f"readout turns of latent {name} needs condition.posterior")
        return self

    @model_validator(mode="after")
    def _strategy_has_its_latents(self) -> Recipe:
        strategy = self.strategy
        if strategy.needs_latent and not self.latents:
            raise ValueError(f"strategy {strategy.kind} needs a latent")
        for name, latent in self.latents.items():
            if strategy.needs_density and latent.posterior.kind in ("point", "implicit"):
                raise ValueError(
                    "strategy aggressive needs a posterior with a density, which the "
                    f"{latent.posterior.kind} posterior of latent {name} has not"
                )
        return self

    @model_validator(mode="after")
    def _codes_of_dialogues(self) -> Recipe:
        """What the policy, attribute forcing and training in two stages rest on."""
        has_policy = any(latent.has_policy for latent in self.latents.values())
        for key in ("policy", "attribute_forcing"):
            if getattr(self.objective, key) and not has_policy:
                raise ValueError(f"objective.{key} needs a latent with prior.policy")
        if self.objective.attribute_forcing and not isinstance(
            self.encoder, RecurrentEncoderConfig
        ):
            raise ValueError("objective.attribute_forcing needs a recurrent encoder")
        if self.strategy.kind != "two-stage":
            for name, latent in self.latents.items():
                aggregated = latent.divergence.kind == "aggregated-kl" or getattr(
                    latent.divergence, "mutual_information", False
                )
                if latent.has_policy and aggregated and not self.objective.policy:
                    raise ValueError(
                        f"prior.policy of latent {name} learns nothing from a divergence of the "
                        "batch's mean from uniform: set objective.policy"
                    )
            return self
        if self.condition is None or self.condition.posterior:
            raise ValueError("strategy two-stage needs a condition with posterior: false")
        for name, latent in self.latents.items():
            if latent.posterior.kind == "refined" or latent.prior.kind == "conditional-gaussian":
                part = "posterior" if latent.posterior.kind == "refined" else "prior"
                raise ValueError(
                    f"strategy two-stage cannot have {part} {getattr(latent, part).kind} "
                    f"of latent {name}, which its second stage would not train"
                )
        if has_policy and not self.objective.policy:
            raise ValueError("strategy two-stage does not train prior.policy: set objective.policy")
        return self

    @model_validator(mode="after")
    def _adversaries(self) -> Recipe:
        adversarial = self.objective.adversarial
        parts = {
            "discriminator": self.discriminator is not None,
            "objective.adversarial": adversarial is not None,
            "strategy adversarial": self.strategy.kind == "adversarial",
        }
        if adversarial is None or not all(parts.values()):
            for name, there in parts.items():
                if any(parts.values()) and not there:
                    asking = next(other for other, given in parts.items() if given)
                    raise ValueError(f"{asking} needs {name}")
            return self
        if self.data.max_length is None or self.data.max_length > adversarial.max_length:
            raise ValueError(
                "data.max_length must be at most objective.adversarial.max_length: "
                "by its length alone, a longer response would be a real one"
            )
        for name, latent in self.latents.items():
            if getattr(latent.divergence, "critic", None) is not None:
                raise ValueError(
                    f"divergence {latent.divergence.kind} of latent {name} has a critic: "
                    "it cannot learn beside a discriminator"
                )
        return self

    @model_validator(mode="after")
    def _one_critic(self) -> Recipe:
        found = [getattr(part.divergence, "critic", None) for part in self.latents.values()]
        critics = [critic for critic in found if critic is not None]
        if any(critic != critics[0] for critic in critics):
            raise ValueError("latents: all critics must have the same settings")
        return self

    @model_validator(mode="after")
    def _selectable(self) -> Recipe:
        kinds = {latent.posterior.kind for latent in self.latents.values()}
        if self.training.select_on == "elbo" and kinds & {"point", "implicit"}:
            raise ValueError(
                "training.select_on elbo needs posteriors with a density; "
                "use objective or reconstruction"
            )
        if self.training.select_on == "elbo":
            for name, latent in self.latents.items():
                if not latent.has_density:
                    raise ValueError(
                        f"training.select_on elbo: prior {latent.prior.kind} of latent {name} has "
                        "no density; use objective or reconstruction"
                    )
        return self


def parse_recipe(values: Mapping[str, Any]) -> Recipe:
    """Check a mapping and build the recipe.

    Raises
    ------
    UserError
        One line that names the offending key and, for an unknown one, the nearest right one.
    """
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise _one_line(error) from None


def check_components(recipe: Recipe, sentences: int) -> None:
    """Refuse a mixture of more components than there are sentences to learn them from.

    Raises
    ------
    UserError
        One line that names the key.
    """
    for name, latent in recipe.latents.items():
        prior = latent.prior
        if isinstance(prior, MixtureConfig) and prior.components > sentences:
            raise UserError(
                f"latents.{name}.prior.components: {prior.components} components cannot be "
                f"learned from {sentences} training sentences"
            )


def keys_of_kind(kind: object) -> set[str]:
    """All keys that a section of this kind may have; none if there is no such kind."""
    if not isinstance(kind, str):
        return set()
    sections = [section for section in _below(Section) if kind in _kinds([section])]
    return {key for section in sections for key in section.model_fields}


def _below(section: type[Section]) -> list[type[Section]]:
    return [part for child in section.__subclasses__() for part in (child, *_below(child))]


def _one_line(error: ValidationError) -> UserError:
    details = error.errors()
    # a misspelt key is also a missing one, and says more
    detail = next((one for one in details if one["type"] == "extra_forbidden"), details[0])
    *parents, last = [str(part) for part in detail["loc"]] or ["recipe"]
    visible, sections = _locate(parents)
    context = detail.get("ctx", {})
    if detail["type"] == "extra_forbidden":
        known = {key for section in sections for key in section.model_fields}
        place = f" in {'.'.join(visible)}" if visible else ""
        siblings = _locate(parents[:-1])[1] if parents else []
        owners = _kinds([section for section in siblings if last in section.model_fields])
        if owners and last not in known:
            others = ", ".join(sorted(owners))
            message = f"it belongs to kind {others}, not {parents[-1]}"
            return UserError(f"unknown key{place} {last!r}: {message}")
        return unknown_name(f"key{place}", last, known)
    if detail["type"] == "union_tag_invalid":
        known = re.findall(r"'([^']*)'", context["expected_tags"])
        return unknown_name(f"{'.'.join([*visible, last])}.kind", context["tag"], known)
    if detail["type"] == "union_tag_not_found":
        known = ", ".join(sorted(_kinds(_locate([*parents, last])[1])))
        return UserError(f"{'.'.join([*visible, last])}: a kind is missing; known: {known}")
    if detail["type"] == "literal_error" and isinstance(detail["input"], str):
        known = re.findall(r"'([^']*)'", context["expected"])
        return unknown_name(".".join([*visible, last]), detail["input"], known)
    if last not in _kinds(sections):  # a check of a whole section ends in its kind
        visible.append(last)
    message = PLAIN.get(detail["type"]) or detail["msg"].removeprefix("Value error, ")
    given = detail.get("input")
    shown = f", not {given!r}" if isinstance(given, str | int | float | bool) else ""
    shown = ", not null" if given is None else shown
    return UserError(f"{'.'.join(visible)}: {message[:1].lower()}{message[1:]}{shown}")


def _locate(parents: list[str]) -> tuple[list[str], list[type[Section]]]:
    """Turn pydantic's path, in which chosen kinds also stand, into the user's own."""
    visible: list[str] = []
    sections: list[type[Section]] = [Recipe]
    for part in parents:
        if part in _kinds(sections):  # before fields: a kind and another's field may share a name
            sections = [section for section in sections if part in _kinds([section])]
            continue
        fields = [s.model_fields[part].annotation for s in sections if part in s.model_fields]
        if fields:
            sections = [found for annotation in fields for found in _sections_in(annotation)]
        visible.append(part)
    return visible, sections


def _kinds(sections: list[type[Section]]) -> set[str]:
    fields = [
        section.model_fields["kind"] for section in sections if "kind" in section.model_fields
    ]
    return {kind for field in fields for kind in get_args(field.annotation)}


def _sections_in(annotation: Any) -> list[type[Section]]:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    return [found for part in get_args(annotation) for found in _sections_in(part)]
