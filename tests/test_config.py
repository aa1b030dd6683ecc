"""Recipes as data: what is refused, and whether the refusal helps."""

from __future__ import annotations

from pathlib import Path

import pytest

from uncollapse.config import parse_recipe
from uncollapse.errors import UserError
from uncollapse.model import Model
from uncollapse.recipes import load_recipe, recipe_to_yaml, with_latent_dim

REFUSED = [
    # unknown keys: the place, the key and the nearest right one
    ("decoder.hidden_dims=3", ["decoder", "hidden_dims", "did you mean 'hidden_dim'"]),
    ("trainin.x=1", ["trainin", "did you mean 'training'"]),
    ("latents.z.posterior.batch_nrm=3", ["latents.z.posterior", "did you mean 'batch_norm'"]),
    ("objective.weight.epoch=3", ["objective.weight", "did you mean 'epochs'"]),
    ("latents.z.divergence.flor={per: total, nats: 1}", ["latents.z.divergence", "'floor'"]),
    ("training.epochs_batches=9", ["training", "did you mean 'epoch_batches'"]),
    ("training.plateau.patients=3", ["training.plateau", "did you mean 'patience'"]),
    # unknown kinds and choices
    ("encoder.kind=lstn", ["encoder.kind", "did you mean 'lstm'"]),
    ("latents.z.divergence.kind=kll", ["latents.z.divergence.kind", "did you mean 'kl'"]),
    ("latents.z.posterior.kind=gausian", ["latents.z.posterior.kind", "'gaussian'"]),
    ("latents.z.prior.kind=standard_normal", ["latents.z.prior.kind", "'standard-normal'"]),
    ("objective.weight.kind=cyclic", ["objective.weight.kind", "did you mean 'cyclical'"]),
    ("strategy.kind=joit", ["strategy.kind", "did you mean 'joint'"]),
    ("latents.z.readout=men", ["latents.z.readout", "did you mean 'mean'"]),
    ("data.tokenizer=word", ["data.tokenizer", "did you mean 'words'"]),
    ("training.optimizer=adamw", ["training.optimizer", "did you mean 'adam'"]),
    # values
    ("training.batch_size=-1", ["training.batch_size", "-1"]),
    ("encoder.hidden_dim=0", ["encoder.hidden_dim", "0"]),
    ("training.epoch_batches=0", ["training.epoch_batches", "greater than or equal to 1, not 0"]),
    ("training.epoch_batches=2.5", ["training.epoch_batches", "integer", "2.5"]),
    ("training.epoch_batches=all", ["training.epoch_batches", "'all'"]),
    ("training.epoch_batches=on", ["training.epoch_batches", "a number", "True"]),
    ("latents.z.dim=many", ["latents.z.dim", "'many'"]),
    ("decoder.word_dropout=1", ["decoder.word_dropout", "less than 1"]),
    ("training.learning_rate=.nan", ["training.learning_rate", "finite"]),
    ("latents.z.divergence.floor={per: total, nats: -1}", ["floor.nats", "greater than 0"]),
    ("data.vocabulary_size=4", ["data.vocabulary_size", "5"]),
    ("objective.weight.start=1.5", ["objective.weight.start", "1.5"]),
    # pieces that do not go together
    ("latents.z.divergence.kind=timestep-mean", ["latents.z", "readout: every"]),
    ("latents.z.combine=sum", ["latents.z", "combine sum", "readout: every"]),
    ("latents.z.posterior={kind: gaussian, floor: 0.1, batch_norm: {}}", ["latents.z.posterior"]),
    ("encoder=null", ["latents need an encoder"]),
    ("latents=null", ["an encoder needs a latent"]),
    ("decoder.initial_state=null decoder.every_input=false", ["the decoder must see z"]),
    ("latents={z y: {}}", ["latents", "'z y'"]),
    (
        "latents.z.posterior={kind: von-mises-fisher}",
        ["latents.z", "von-mises-fisher and uniform-sphere"],
    ),
    ("latents.z.posterior.kind=implicit", ["latents.z", "implicit", "divergence kl"]),
    # keys of another kind say whose they are
    ("latents.z.posterior.kappa=3", ["'kappa'", "von-mises-fisher, not gaussian"]),
    ("strategy.epochs=3", ["strategy", "a kind is missing", "pretrained"]),
    ("decoder.dilations=[1]", ["decoder", "'dilations'", "dilated-cnn, not lstm"]),
    # values of the wrong type, in the words of YAML
    ("latents.z.posterior.kind=[1]", ["latents.z.posterior.kind", "'[1]'"]),
    ("encoder.kind={a: b}", ["encoder.kind"]),
    ("strategy.kind=[joint]", ["strategy.kind"]),
    ("strategy=joint", ["strategy", "a section of keys", "'joint'"]),
    ("objective=null", ["objective", "a section of keys", "null"]),
    ("objective.weight={value: 1}", ["objective.weight", "a kind is missing", "constant"]),
    ("latents.z.dim=yes", ["latents.z.dim", "a number", "True"]),
    ("training.learning_rate=on", ["training.learning_rate", "a number"]),
    # sections that are none
    ("decoder=null", ["decoder"]),
    ("latents=3", ["latents"]),
    ("encoder=[1]", ["encoder"]),
    ("latents.z.dim.x=3", ["latents.z.dim.x", "dim is not a section"]),
    # overrides that are none
    ("latents.z.dim", ["latents.z.dim", "section.key=value"]),
    ("=3", ["section.key=value"]),
    ("summary=[1", ["summary=[1", "not valid YAML"]),
    ("summary=!!python/name:os.system", ["not valid YAML"]),
    ("summary=2001-99-99", ["not valid YAML"]),
]


@pytest.mark.parametrize(("override", "expected"), REFUSED, ids=[case[0] for case in REFUSED])
def test_mistake_is_named_in_one_line(override: str, expected: list[str]) -> None:
    overrides = override.split() if override.startswith("decoder.initial") else [override]
    with pytest.raises(UserError) as caught:
        load_recipe("vae", overrides)
    message = str(caught.value)
    assert "\n" not in message
    for part in expected:
        assert part in message
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("name", "override", "expected"),
    [
        ("vmf-vae", "latents.z.posterior.kappa=0", ["kappa", "greater than 0"]),
        ("vmf-vae", "latents.z.posterior.kappa=1e30", ["kappa", "1000000"]),
        ("vmf-vae", "latents.z.dim=1", ["a sphere needs dim 2"]),
        ("vmf-vae", "latents.z.prior.kind=standard-normal", ["uniform-sphere"]),
        ("delta-vae", "latents.z.posterior.floor=1000", ["floor", "40"]),
        ("bn-flow-vae", "latents.z.posterior.length=0", ["posterior.length"]),
        ("sa-vae", "latents.z.posterior.steps=0", ["posterior.steps"]),
        ("cnn-vae", "decoder.dilations=[]", ["decoder.dilations", "not be empty"]),
        ("cnn-vae", "decoder.dilations=[0]", ["decoder.dilations"]),
        ("cnn-vae", "decoder.dilations=3", ["decoder.dilations", "a list"]),
        ("cnn-vae", "decoder.every_input=false", ["set decoder.every_input"]),
        ("transformer-vae", "decoder.heads=0", ["decoder.heads"]),
        ("transformer-vae", "encoder.layers=0", ["encoder.layers"]),
        ("ivae", "latents.z.divergence.critic.steps=0", ["critic.steps"]),
        ("ivae", "latents.z.readout=every", ["implicit", "readout: every"]),
        ("ivae", "training.select_on=elbo", ["select_on", "objective"]),
        ("ivae", "strategy.kind=aggressive", ["aggressive", "implicit"]),
        ("twr-vae", "latents.z.posterior.kind=point", ["point", "timestep-mean"]),
        ("wae-rnf", "latents.z.posterior.kind=point", ["point", "divergence.kl"]),
        ("lstm-lm", "strategy.kind=pretrained", ["pretrained needs a latent"]),
        ("autoencoder", "strategy.kind=aggressive", ["aggressive", "point"]),
        ("pretrained-bn-vae", "strategy.then.kind=aggresive", ["'aggressive'"]),
        ("pretrained-bn-vae", "strategy.then.epochs=3", ["strategy.then", "kind is missing"]),
        ("vae@", "latents.z.dim=3", ["unknown corpus", "yahoo"]),
    ],
)
def test_mistake_in_a_system_is_named(name: str, override: str, expected: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        load_recipe(name, [override])
    message = str(caught.value)
    assert "\n" not in message
    for part in expected:
        assert part in message


def test_missing_decoder_is_named() -> None:
    with pytest.raises(UserError, match="decoder: field required"):
        parse_recipe({"name": "x", "summary": "x", "source": "x"})


@pytest.mark.parametrize("name", ["pop", "type", "training"])
def test_latent_may_not_take_a_name_of_pytorch(name: str) -> None:
    recipe = load_recipe("vae", [f"latents={{{name}: {{dim: 2}}}}"])
    with pytest.raises(UserError, match=name):
        Model(recipe, 10)


def test_override_reads_yaml_and_leaves_the_rest() -> None:
    recipe = load_recipe("vae", ["encoder.kind=gru", "training.learning_rate=1e-3"])
    plain = load_recipe("vae")
    assert recipe.encoder is not None
    assert recipe.encoder.kind == "gru"
    assert recipe.training.learning_rate == 1e-3
    assert recipe.encoder.hidden_dim == 256
    assert recipe.decoder == plain.decoder
    assert recipe.latents == plain.latents


def test_override_makes_sections_that_were_null() -> None:
    recipe = load_recipe("vae", ["latents.z.divergence.floor={per: total, nats: 2}"])
    assert recipe_to_yaml(recipe).count("nats: 2.0") == 1
    recipe = load_recipe("vae", ["latents.z.posterior.batch_norm.scale=0.5"])
    assert recipe_to_yaml(recipe).count("scale: 0.5") == 1


def test_with_latent_dim_changes_every_latent_and_nothing_else() -> None:
    recipe = load_recipe("vae", ["latents.c.dim=3"])
    changed = with_latent_dim(recipe, 5)
    assert {name: latent.dim for name, latent in changed.latents.items()} == {"z": 5, "c": 5}
    assert with_latent_dim(changed, 32).latents["z"] == recipe.latents["z"]
    assert changed.decoder == recipe.decoder


def test_recipe_cannot_be_changed_in_place() -> None:
    recipe = load_recipe("vae")
    with pytest.raises(ValueError, match="frozen"):
        recipe.training.batch_size = 3  # type: ignore[misc]


# --- files --------------------------------------------------------------------------------


def write(folder: Path, name: str, text: str) -> Path:
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return file


def test_file_extends_a_packaged_recipe(tmp_path: Path) -> None:
    file = write(tmp_path, "mine.yaml", "extends: bn-vae\nlatents: {z: {dim: 8}}\n")
    recipe = load_recipe(file)
    assert recipe.name == "mine"
    assert recipe.latents["z"].dim == 8
    assert recipe.latents["z"].posterior == load_recipe("bn-vae").latents["z"].posterior


def test_file_extends_a_file_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "base/base.yaml", "extends: vae\nlatents: {z: {dim: 8}}\n")
    file = write(tmp_path, "mine.yaml", "extends: base/base.yaml\ndecoder: {hidden_dim: 9}\n")
    monkeypatch.chdir(tmp_path / "base")  # where one stands does not matter
    recipe = load_recipe(file)
    assert recipe.latents["z"].dim == 8
    assert recipe.decoder.hidden_dim == 9


def test_part_of_another_kind_replaces_the_whole_part(tmp_path: Path) -> None:
    text = "extends: vae\nobjective: {weight: {kind: cyclical, period_epochs: 4}}\n"
    weight = load_recipe(write(tmp_path, "mine.yaml", text)).objective.weight
    # the linear schedule's `start: 0.1` and `epochs` are gone
    assert weight.model_dump() == {
        "kind": "cyclical",
        "period_epochs": 4.0,
        "rising": 0.5,
        "start": 0.0,
    }


def test_file_may_bear_the_name_of_the_recipe_that_it_extends(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, "vae.yaml", "extends: vae\n"))
    # the figures that a paper prints are those of the recipe itself, not of what extends it
    assert recipe == load_recipe("vae").model_copy(update={"published": {}})


@pytest.mark.parametrize("files", [{"a": "a"}, {"a": "b", "b": "a"}])
def test_recipes_that_extend_each_other_are_refused(tmp_path: Path, files: dict[str, str]) -> None:
    for name, base in files.items():
        write(tmp_path, f"{name}.yaml", f"extends: {base}.yaml\n")
    with pytest.raises(UserError, match="extends itself") as caught:
        load_recipe(tmp_path / "a.yaml")
    assert "\n" not in str(caught.value)


BAD_FILES = {
    "code": "!!python/object/apply:os.system ['echo no']\n",
    "code in a value": "extends: vae\nsummary: !!python/object/apply:os.getcwd []\n",
    "list": "[1, 2]\n",
    "empty": "",
    "broken": "a:\n b\n  c: 1\n",
    "date": "extends: vae\nsummary: 2001-99-99\n",
    "number as key": "extends: vae\n1: 2\n",
    "unknown base": "extends: vee\n",
}


@pytest.mark.parametrize("text", BAD_FILES.values(), ids=BAD_FILES.keys())
def test_bad_file_is_refused_in_one_line(tmp_path: Path, text: str) -> None:
    with pytest.raises(UserError) as caught:
        load_recipe(write(tmp_path, "mine.yaml", text))
    assert "\n" not in str(caught.value)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.yaml"):
        load_recipe(tmp_path / "none.yaml")


def test_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="cannot read"):
        load_recipe(file)


def test_unknown_recipe_gets_the_nearest_name() -> None:
    with pytest.raises(UserError, match="did you mean 'bn-vae'"):
        load_recipe("bn-va")
