"""Answers in dialogues: what they depend on, which action they take, and what is refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from dialogue_models import (
    CONDITIONAL,
    DIALOGUES,
    TURNS,
    WHOLE,
    WITH_LATENT,
    dialogue_model,
)

from uncollapse import TextVAE
from uncollapse.dialogues import OpenDialogue
from uncollapse.errors import UserError
from uncollapse.responding import Response


def texts(answers: list[list[Response]]) -> list[list[str]]:
    return [[response.text for response in own] for own in answers]


@pytest.mark.parametrize("kind", CONDITIONAL)
def test_answers_follow_the_seed_and_nothing_else(kind: str) -> None:
    vae = dialogue_model(kind)
    state = torch.get_rng_state()
    how: dict[str, Any] = {"n": 3, "max_length": 6}
    found = vae.respond(DIALOGUES, seed=1, **how)
    assert [len(own) for own in found] == [3] * len(DIALOGUES)
    for batch_size in (1, 2, 64):
        assert vae.respond(DIALOGUES, seed=1, batch_size=batch_size, **how) == found
    # others in their places, some before and some after
    for place, dialogue in enumerate(DIALOGUES):
        among: list[Any] = [["go home now ? " * 9]] * place + [dialogue, ["hello"] * 5]
        assert vae.respond(among, seed=1, **how)[place] == found[place]
    assert vae.respond(DIALOGUES, seed=2, **how) != found
    assert vae.respond(DIALOGUES, **how) != vae.respond(DIALOGUES, **how)
    assert torch.equal(state, torch.get_rng_state())
    # the same words in two places get answers of their own
    twice = vae.respond([TURNS, TURNS], n=8, seed=1)
    assert twice[0] != twice[1]
    assert len(set(texts(twice)[0])) > 1


@pytest.mark.parametrize("kind", CONDITIONAL)
def test_the_last_turns_of_a_context_and_who_said_them_count(kind: str) -> None:
    vae = dialogue_model(kind)
    how: dict[str, Any] = {"n": 8, "seed": 0, "max_length": 8}
    found = vae.respond([TURNS], **how)
    assert found == vae.respond([TURNS[-3:]], **how)
    assert found == vae.respond([[*TURNS[:-1], " ", TURNS[-1]]], **how)  # nothing said
    assert found != vae.respond([TURNS[-2:]], **how)
    assert found == vae.respond([{"turns": TURNS, "speaker": "A"}], **how)  # nobody else known
    known = WHOLE["turns"]
    by_speaker = [vae.respond([{"turns": known, "speaker": who}], **how) for who in "ABC"]
    assert by_speaker[0] != by_speaker[1]
    assert vae.respond([known], **how) == by_speaker[1]  # A spoke last


@pytest.mark.parametrize(
    ("speakers", "answerer"),
    [
        ([], None),
        (["A"], None),
        (["A", "B"], "A"),
        (["A", "B", "B"], "A"),
        (["A", "B", "A"], "B"),
        (["A", "B", "C"], None),
        (["A", "B", None], None),
        (["A", None, "B"], "A"),
        ([0, 1], "0"),
    ],
)
def test_of_two_speakers_the_other_one_answers(speakers: list[Any], answerer: str | None) -> None:
    turns = [
        {"speaker": name, "text": "hello"} if name is not None else "hello" for name in speakers
    ]
    assert OpenDialogue.of(turns, "it").speaker == answerer
    assert OpenDialogue.of({"turns": turns}, "it").speaker == answerer
    assert OpenDialogue.of({"turns": turns, "speaker": "X"}, "it").speaker == "X"


@pytest.mark.parametrize("kind", WITH_LATENT)
def test_words_are_those_of_the_prior_s_z_in_the_context(kind: str) -> None:
    """An answer to nothing is a sentence of the model without a context, for the same draws."""
    vae = dialogue_model(kind)
    seen: list[tuple[Any, ...]] = []
    write: Any = vae._write
    vae._write = lambda *given: seen.append(given) or write(*given)  # type: ignore[method-assign]
    (answers,) = vae.respond([[]], n=5, method="greedy", max_length=6, seed=0)
    how: list[Any]
    z, rows, *how, _, condition = seen[0]
    assert rows == 5
    assert not condition.vector.any()
    alone = write(z, rows, *how, None)
    assert [answer.text for answer in answers] == alone == vae.decode(z.numpy(), max_length=6)
    drawn: dict[str, Any] = {"method": "sample", "seed": 0}
    again = vae.decode(z.numpy(), **drawn)
    assert again == vae.decode(z.numpy(), context=[], **drawn)
    assert again != vae.decode(z.numpy(), context=TURNS, **drawn)


@pytest.mark.parametrize(("kind", "variable"), [("mixture", "z.component"), ("codes", "c")])
def test_actions_have_the_probabilities_that_the_context_gives(kind: str, variable: str) -> None:
    vae = dialogue_model(kind)
    rows = 2000
    dialogues: list[Any] = [[], TURNS]
    with torch.no_grad():
        condition = vae._condition(*vae._contexts(OpenDialogue.list_of(dialogues)))
        prior: Any = vae.model.named_latents()[variable.partition(".")[0]].prior
        weights = prior.given(condition).log_weights.exp()  # (2, M, K)
    torch.testing.assert_close(weights[0], torch.full_like(weights[0], 1 / 4))
    assert (weights[1] - 1 / 4).abs().max() > 0.1
    found = vae.respond(dialogues, n=rows, max_length=1, seed=0)
    for own, expected in zip(found, weights, strict=True):
        codes = [response.action or "" for response in own]
        shares = Counter(codes)
        for code in product(range(4), repeat=len(expected)):
            probability = float(expected[range(len(code)), code].prod())
            error = (probability * (1 - probability) / rows) ** 0.5
            share = shares["-".join(map(str, code))] / rows
            assert abs(share - probability) < 5 * error + 1e-9


@pytest.mark.parametrize(("kind", "variable"), [("mixture", "z.component"), ("codes", "c")])
def test_the_action_that_is_held_is_the_one_reported(kind: str, variable: str) -> None:
    vae = dialogue_model(kind)
    indexes = vae.model.variable_sizes()[variable][0]
    held = "-".join(["2", *["1"] * (indexes - 1)])
    how: dict[str, Any] = {"n": 6, "seed": 0, "max_length": 4}
    found = vae.respond(DIALOGUES, component=held, **how)
    assert {(r.action, r.name) for own in found for r in own} == {(held, None)}
    free = "-".join(["*"] * (indexes - 1) + ["3"])
    found = vae.respond(DIALOGUES, component=free, **how)
    actions = {r.action or "" for own in found for r in own}
    assert len(actions) > 1
    assert {action.split("-")[-1] for action in actions} == {"3"}
    assert found == vae.respond(DIALOGUES, component=3, index=indexes - 1, **how)
    vae.name_components({variable: {held: "greets", free: "leaves"}})
    named = vae.respond(DIALOGUES, component="greets", **how)
    assert {(r.action, r.name) for own in named for r in own} == {(held, "greets")}
    assert texts(named) == texts(vae.respond(DIALOGUES, component=held, variable=variable, **how))
    left = vae.respond(DIALOGUES, component="leaves", **how)
    assert {r.name for own in left for r in own} == {"leaves"}
    assert texts(left) == texts(found)
    # nothing is held: a code that has a name shows it
    names = {(r.action, r.name) for r in vae.respond([[]], n=400, seed=0, max_length=1)[0]}
    assert (held, "greets") in names
    assert all(name is None for action, name in names if action != held)


def test_the_component_that_is_held_decides_about_z() -> None:
    vae = dialogue_model("mixture")
    seen: list[torch.Tensor] = []
    write = vae._write
    vae._write = lambda z, *rest: seen.append(z) or write(z, *rest)  # type: ignore[method-assign]
    with torch.no_grad():
        prior: Any = vae.model.named_latents()["z"].prior
        prior.free[..., 0] = torch.tensor([-90.0, -30.0, 30.0, 90.0])  # means, (M, U, K)
    vae.respond(DIALOGUES, n=4, component="0-3", seed=0)
    z = seen[0].view(len(DIALOGUES) * 4, 2, 2)
    assert (z[:, 0] < -60).all()
    assert (z[:, 1] > 60).all()
    (answers,) = vae.respond([TURNS], n=9, seed=0)
    # z of an answer is of the component that it reports
    nearest = ((seen[1].view(9, 2, 2) + 120) / 60).mean(-1).floor().long()
    assert ["-".join(map(str, code)) for code in nearest.tolist()] == [a.action for a in answers]


def test_a_model_without_a_latent_answers_too() -> None:
    vae = dialogue_model("no latent")
    (drawn,) = vae.respond([TURNS], n=9, seed=0)
    assert len({response.text for response in drawn}) > 1
    assert {(response.action, response.name) for response in drawn} == {(None, None)}
    (likely,) = vae.respond([TURNS], n=9, method="greedy")
    assert len({response.text for response in likely}) == 1
    with pytest.raises(UserError, match="no latent"):
        vae.respond([TURNS], component="3")
    with pytest.raises(UserError, match="no latent"):
        vae.interpolate("hello", "home", context=TURNS)


# --- mistakes ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda vae: vae.respond([TURNS], n=0), "n must be at least 1"),
        (lambda vae: vae.respond([TURNS], batch_size=0), "batch_size must be"),
        (lambda vae: vae.respond([TURNS], seed=-1), "seed"),
        (lambda vae: vae.respond([TURNS], method="gredy"), "did you mean 'greedy'"),
        (lambda vae: vae.respond([TURNS], temperature=0), "temperature"),
        (lambda vae: vae.respond([TURNS], top_p=2), "top_p"),
        (lambda vae: vae.respond([TURNS], max_length=0), "max_length"),
        (lambda vae: vae.respond([TURNS], component="0-9"), "'9'"),
        (lambda vae: vae.respond([TURNS], component="greets"), "has a name"),
        (lambda vae: vae.respond([TURNS], component="1"), "one index of 2"),
        (lambda vae: vae.respond([TURNS], component="1", variable="z"), "unknown variable 'z'"),
        (lambda vae: vae.respond([TURNS], index=0), "with a component"),
        (lambda vae: vae.respond("hello"), "list of lists"),
        (lambda vae: vae.respond({"turns": TURNS}), "list of lists"),
        (lambda vae: vae.respond(TURNS), "dialogue 1 must be a list of turns, not str"),
        (lambda vae: vae.respond([TURNS, 3]), "dialogue 2 must be a list of turns, not int"),
        (lambda vae: vae.respond([TURNS, ["a", 3]]), "dialogue 2, turn 2"),
        (lambda vae: vae.respond([TURNS, TURNS, [3]], batch_size=1), "dialogue 3, turn 1"),
        (lambda vae: vae.respond([[{"txt": "a"}]]), "dialogue 1, turn 1: no column 'text'"),
        (lambda vae: vae.respond([{"turn": TURNS}]), r"no 'turns' \(keys: turn\)"),
        (lambda vae: vae.respond([{"turns": TURNS, "speaker": []}]), "'speaker' must be"),
        (lambda vae: vae.respond([[{"text": "a", "speaker": []}]]), "turn 1: 'speaker'"),
        (lambda vae: vae.interpolate("a", "b", context="c"), "the context must be a list"),
        (lambda vae: vae.encode(["a"], context=3), "the context must be a list"),
    ],
)
def test_mistakes_get_one_line(call: Callable[[TextVAE], Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        call(dialogue_model("mixture"))
    assert "\n" not in str(caught.value)


def test_a_model_that_is_told_of_no_context_says_so() -> None:
    vae = dialogue_model("no context")
    for dialogues in ([TURNS], [[]], []):
        with pytest.raises(UserError, match=r"small-dialogue is told of no context.*; use sample"):
            vae.respond(dialogues)
    for call in (
        lambda: vae.interpolate("hello", "home", context=TURNS),
        lambda: vae.encode(["hello"], context=TURNS),
        lambda: vae.decode(np.zeros((1, 4)), context=[]),
    ):
        with pytest.raises(UserError, match=r"is told of no context.*; leave the context out"):
            call()
    with pytest.raises(UserError, match="not trained yet"):
        TextVAE(vae.recipe).respond([TURNS])


def test_nothing_to_answer_gets_nothing() -> None:
    assert dialogue_model("gaussian").respond([]) == []
