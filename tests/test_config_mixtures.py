"""Recipes of mixtures and codes as data: what is refused, how, and what corpora change."""

from __future__ import annotations

import pytest

from uncollapse.config import MixtureConfig, check_components
from uncollapse.errors import UserError
from uncollapse.recipes import load_recipe, recipe_names, with_latent_dim

TWICE = "objective.supervision=[{column: a, variable: z}, {column: %s, variable: z, index: %d}]"
REFUSED = [
    # sizes and shares
    ("gm-vae", "latents.z.prior.components=1", ["latents.z.prior.components", "equal to 2", "1"]),
    ("gm-vae", "latents.z.groups=0", ["latents.z.groups", "equal to 1"]),
    ("gm-vae", "latents.z.divergence.beta=1.2", ["latents.z.divergence.beta", "equal to 1", "1.2"]),
    ("gm-vae", "latents.z.divergence.beta=-0.1", ["latents.z.divergence.beta", "equal to 0"]),
    ("gm-vae", "latents.z.divergence.floor={z: 0, component: 1}", ["floor.z", "greater than 0"]),
    ("gm-vae", "latents.z.divergence.floor={z: 1}", ["floor.component", "required"]),
    (
        "gm-vae",
        "latents.z.divergence.mutual_information=often",
        ["information", "true or false"],
    ),
    ("gm-vae", "objective.samples=0", ["objective.samples", "equal to 1"]),
    ("di-vae", "latents.c.posterior.categories=1", ["posterior.categories", "equal to 2", "1"]),
    (
        "di-vae",
        "latents.c.posterior.relaxation.temperature=-1",
        ["latents.c.posterior.relaxation.temperature", "greater than 0", "-1"],
    ),
    ("di-vae", "latents.c.posterior.relaxation.final=0", ["relaxation.final", "greater than 0"]),
    ("gm-vae", "latents.z.prior.hidden=gelu", ["latents.z.prior.hidden", "'gelu'", "relu"]),
    # unknown names
    ("gm-vae", "latents.z.prior.component=3", ["latents.z.prior", "mean 'components'"]),
    ("gm-vae", "latents.z.divergence.bta=1", ["latents.z.divergence", "mean 'beta'"]),
    ("di-vae", "latents.c.posterior.kind=categoric", ["posterior.kind", "mean 'categorical'"]),
    ("gm-vae", "latents.z.prior.kind=mixtur", ["prior.kind", "mean 'mixture'"]),
    ("vae", "latents.z.divergence.beta=1", ["'beta'", "dispersed, not kl"]),
    ("vae", "latents.z.prior.components=3", ["latents.z.prior", "a kind is missing", "mixture"]),
    # pieces that do not go together
    ("vae", "latents.z.divergence.kind=dispersed", ["latents.z", "dispersed needs prior mixture"]),
    ("vae", "latents.z.posterior.kind=gamma", ["latents.z", "posterior gamma needs prior mixture"]),
    ("vae", "latents.z.posterior.kind=poisson", ["posterior poisson needs prior mixture"]),
    (
        "vae",
        "latents.z.divergence.kind=aggregated-kl",
        ["latents.z", "aggregated-kl needs prior uniform-categorical"],
    ),
    ("gm-vae", "latents.z.divergence.kind=aggregated-kl", ["aggregated-kl", "uniform-categorical"]),
    (
        "vae",
        "latents.z.prior.kind=uniform-categorical",
        ["latents.z", "uniform-categorical is for codes, not for gaussian"],
    ),
    (
        "vae",
        "latents.z.posterior.kind=categorical",
        ["categorical needs prior uniform-categorical or mixture, not standard-normal"],
    ),
    (
        "gm-vae",
        "latents.z.divergence={kind: kl, floor: {per: total, nats: 3}}",
        ["the floor of a mixture is that of divergence dispersed"],
    ),
    ("gm-vae", "latents.z.divergence.kind=mmd", ["prior mixture", "kl or dispersed, not mmd"]),
    ("gm-vae", "latents.z.divergence.kind=dual", ["prior mixture", "kl or dispersed, not dual"]),
    ("gm-vae", "latents.z.posterior.kind=flow", ["prior mixture", "flow"]),
    ("gm-vae", "latents.z.posterior.kind=point", ["prior mixture", "point"]),
    ("gm-vae", "latents.z.readout=every", ["latents.z", "prior mixture", "readout: every"]),
    ("di-vae", "latents.c.readout=every", ["latents.c", "categorical", "readout: every"]),
    (
        "gm-vae",
        "latents.z.posterior.kind=von-mises-fisher",
        ["von-mises-fisher", "groups must be 1"],
    ),
    ("gm-vae", "latents.z=null", ["an encoder needs a latent"]),
    ("cm-vae", TWICE % ("a", 1), ["supervision by column a is there twice"]),
    ("cm-vae", TWICE % ("b", 0), ["supervision of index 0 of z is there twice"]),
    ("cm-vae", "objective.supervision=[{column: a}]", ["supervision", "variable", "required"]),
    ("cm-vae", "objective.supervision=[{colum: a, variable: z}]", ["supervision", "mean 'column'"]),
    ("cm-vae", "objective.supervision=3", ["objective.supervision", "a list"]),
    ("cm-vae", "objective.supervision=[{column: a, variable: z, weight: 0}]", ["weight", "than 0"]),
]


@pytest.mark.parametrize(
    ("name", "override", "expected"), REFUSED, ids=[f"{case[0]} {case[1]}" for case in REFUSED]
)
def test_mistake_is_named_in_one_line(name: str, override: str, expected: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        load_recipe(name, [override])
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 200
    for part in expected:
        assert part in message


SIZES = {  # groups, dim and more on PTB, DailyDialog and SMD
    "gm-vae": [(20, 2), (3, 5), (3, 16)],
    "dgm-vae": [(20, 2), (3, 5), (3, 16)],
    "dgm-vae-mi": [(20, 2), (3, 5), (3, 16)],
    "gamma-mixture-vae": [(20, 2), (3, 5), (3, 16)],
    "dbm-vae": [(3, 16), (3, 16), (3, 16)],
    "cm-vae": [(1, 30), (1, 30), (1, 30)],
    "dcm-vae": [(1, 30), (1, 30), (1, 30)],
    "supervised-dvae": [(1, 30), (1, 30), (1, 30)],
    "discrete-vae": [(20, 1), (3, 1), (3, 1)],
    "di-vae": [(20, 1), (3, 1), (3, 1)],
    "discrete-autoencoder": [(20, 1), (3, 1), (3, 1)],
}


@pytest.mark.parametrize("name", list(SIZES))
def test_sizes_on_the_corpora_of_the_paper(name: str) -> None:
    found = []
    for corpus in ("", "@dailydialog", "@smd"):
        recipe = load_recipe(name + corpus)
        assert len(recipe.latents) == 1
        (latent,) = recipe.latents.values()
        found.append((latent.groups, latent.dim))
        many = isinstance(latent.prior, MixtureConfig) and latent.groups == 20
        assert recipe.objective.samples == (20 if many else 1)
        assert recipe.data.tokenizer == ("words" if corpus or name in SUPERVISED else "whitespace")
        if isinstance(latent.prior, MixtureConfig):
            assert latent.prior.components == (30 if name in ("cm-vae", "dcm-vae") else 5)
    assert found == SIZES[name]


SUPERVISED = ("cm-vae", "dcm-vae", "supervised-dvae")


@pytest.mark.parametrize("name", ["semi-vae", "semi-vae-mi"])
def test_sizes_of_two_latents(name: str) -> None:
    for corpus, dim, groups in (("", 40, 20), ("@dailydialog", 5, 3), ("@smd", 48, 3)):
        latents = load_recipe(name + corpus).latents
        assert (latents["z"].groups, latents["z"].dim) == (1, dim)
        assert (latents["c"].groups, latents["c"].dim) == (groups, 1)


def test_dispersion_on_the_corpora_of_the_paper() -> None:
    """The paper's β; the official flag is 1 − β."""
    for name, beta in (
        ("dgm-vae", 0.8),
        ("dgm-vae@dailydialog", 0.9),
        ("dgm-vae@smd", 0.5),
        ("dgm-vae-mi@smd", 0.5),
        ("gm-vae@smd", 0.0),
        ("dcm-vae@dailydialog", 0.4),
        ("cm-vae", 0.0),
    ):
        divergence = load_recipe(name).latents["z"].divergence
        assert divergence.kind == "dispersed"
        assert divergence.beta == beta, name


def test_latent_dim_of_a_command_leaves_codes_alone() -> None:
    assert with_latent_dim(load_recipe("gm-vae"), 7).latents["z"].dim == 7
    semi = with_latent_dim(load_recipe("semi-vae"), 7).latents
    assert (semi["z"].dim, semi["c"].dim) == (7, 1)
    assert with_latent_dim(load_recipe("dcm-vae"), 7) == load_recipe("dcm-vae")


def test_more_components_than_sentences_are_refused() -> None:
    check_components(load_recipe("gm-vae"), 5)
    with pytest.raises(UserError, match=r"latents\.z\.prior\.components.* 5 .* 4 ") as caught:
        check_components(load_recipe("gm-vae"), 4)
    assert "\n" not in str(caught.value)
    for name in recipe_names():
        check_components(load_recipe(name), 1000)


def test_a_floor_on_directions_under_a_mixture_is_none_on_a_constant() -> None:
    sphere = ["latents.z.groups=1", "latents.z.posterior.kind=von-mises-fisher"]
    floor = "latents.z.divergence.floor={z: 1, component: 1}"
    recipe = load_recipe("gm-vae", [*sphere, floor])
    assert recipe.latents["z"].divergence.floor is not None
