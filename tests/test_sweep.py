"""What a sweep asks for: its values, the recipes that it fits, and what the systems are called."""

from __future__ import annotations

from pathlib import Path

import pytest

from uncollapse.benchmark.compare import compare
from uncollapse.benchmark.plans import make_plans
from uncollapse.benchmark.sweep import read_sweep
from uncollapse.errors import UserError

BETA = "latents.z.divergence.beta"


def names_of(recipes: list[str], sweep: str, overrides: tuple[str, ...] = ()) -> list[str]:
    return [plan.name for plan in make_plans(recipes, None, overrides, sweep)[0]]


def test_only_recipes_that_have_the_key_are_swept() -> None:
    plans, sweep = make_plans(["vae", "lstm-lm", "dgm-vae", "cm-vae"], None, (), f"{BETA}=0,1")
    assert [plan.name for plan in plans] == [
        "vae", "lstm-lm", "dgm-vae, beta=0", "dgm-vae, beta=1", "cm-vae, beta=0", "cm-vae, beta=1",
    ]  # fmt: skip
    assert sweep is not None
    assert list(sweep.systems) == ["dgm-vae", "cm-vae"]
    assert names_of(["lstm-lm", "vae"], "training.clip_norm=null,1")[:2] == [
        "lstm-lm, clip_norm=null", "lstm-lm, clip_norm=1",
    ]  # fmt: skip


def test_a_key_that_is_ambiguous_is_named_in_full() -> None:
    assert names_of(["vae"], "encoder.hidden_dim=3,4") == [
        "vae, encoder.hidden_dim=3", "vae, encoder.hidden_dim=4",
    ]  # fmt: skip
    assert names_of(["vae"], "latents.z.dim=3") == ["vae, dim=3"]
    assert names_of(["semi-vae"], "latents.z.dim=3") == ["semi-vae, latents.z.dim=3"]


def test_sections_that_a_recipe_could_have_can_be_swept() -> None:
    key = "latents.z.posterior.batch_norm"
    assert names_of(["vae", "lstm-lm"], f"{key}.scale=0.5,1") == [
        "vae, scale=0.5", "vae, scale=1", "lstm-lm",
    ]  # fmt: skip
    assert names_of(["bn-vae", "vae"], f"{key}.scale=0.5") == ["bn-vae, scale=0.5", "vae"]
    plans, _ = make_plans(["vae"], None, (), f"{key}=null,{{scale: 0.5}}")
    assert [plan.folder for plan in plans] == [
        "vae,batch_norm=null", "vae,batch_norm={scale%3A 0.5}",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("1,2", ["1", "2"]),
        (" 1 , [1, 2] ,{a: [3, 4]}", ["1", "[1, 2]", "{a: [3, 4]}"]),
        ("'a,b',\"c,d\"", ["'a,b'", '"c,d"']),
        ("don't,['x]', y],won't", ["don't", "['x]', y]", "won't"]),
        ("[1,2", ["[1,2"]),
    ],
)
def test_values_are_split_at_commas_outside_brackets(text: str, values: list[str]) -> None:
    assert read_sweep(f"a.b={text}") == ("a.b", tuple(values))


def test_folders_of_values_are_legal_names() -> None:
    plans, _ = make_plans(["vae"], None, (), "summary='a/b: c',..,\"*?\",é")
    for plan in plans:
        assert Path(plan.folder).name == plan.folder
        assert not set(plan.folder) & set('<>:"/\\|?*')
    assert len({plan.folder for plan in plans}) == 4


def test_more_components_than_sentences_are_refused_before_anything_is_trained(
    tmp_path: Path,
) -> None:
    key = "latents.z.prior.components"
    with pytest.raises(UserError, match=rf"{key}: 50 components cannot be learned from 3 training"):
        compare(
            ["dgm-vae"],
            ["a b", "c", " ", "d"],
            ["a", "b"],
            tmp_path / "out",
            sweep=f"{key}=2,50",
        )
    assert not (tmp_path / "out").exists()
