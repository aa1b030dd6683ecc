"""Every decoder a word at a time: its states, what a word costs, and the options of recipes."""

from __future__ import annotations

import pytest
import torch
from decoder_variants import DIM, by_stepping, every_kind, every_variant, make_decoder
from helpers import VOCABULARY, make_batch, random_sentences
from torch import Tensor

from uncollapse.data.tokenizer import BOS, EOS, PAD
from uncollapse.decoders import State, base, build_decoder, recurrent
from uncollapse.decoders.generation import ProjectedWords, generate
from uncollapse.errors import UserError
from uncollapse.recipes import load_recipe

# --- states -------------------------------------------------------------------------------


@torch.no_grad()
@every_variant
def test_some_rows_go_on_as_if_alone(variant: str) -> None:
    decoder, z = make_decoder(variant), torch.randn(6, DIM)
    inputs = torch.randint(4, VOCABULARY, (6, 9))
    whole = by_stepping(decoder, z, inputs)
    for rows in (torch.tensor([4, 1, 1]), torch.arange(6) % 2 == 0, torch.zeros(6).bool()):
        state = decoder.start(z, 6)
        for step in range(9):
            if step == 5:
                state = state.select(rows)
            words = inputs[:, step] if step < 5 else inputs[rows, step]
            state = decoder.step(decoder.project_words(words), state)
        torch.testing.assert_close(state.features, whole[rows, -1])


@torch.no_grad()
@every_variant
def test_a_state_can_be_gone_on_from_more_than_once(variant: str) -> None:
    """As in a beam: all continuations live at the same time."""
    decoder, z = make_decoder(variant), torch.randn(1, DIM)
    frontier: list[tuple[list[int], State]] = [([], decoder.start(z, 1))]
    for _ in range(3):
        frontier = [
            ([*words, word], decoder.step(decoder.project_words(torch.tensor([word])), state))
            for words, state in frontier
            for word in (5, 6, 7)
        ]
    assert len(frontier) == 27
    inputs = torch.tensor([words for words, _ in frontier])
    expected = decoder.states(z.expand(27, DIM), inputs)[:, -1]
    found = torch.cat([state.features for _, state in frontier])
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("precision", ["f32", "bf16"])
@every_variant
def test_rows_can_be_replaced_by_those_of_another_state(variant: str, precision: str) -> None:
    decoder, z = make_decoder(variant), torch.randn(6, DIM)
    inputs = torch.randint(4, VOCABULARY, (6, 9))
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        whole = by_stepping(decoder, z, inputs)
        state, waiting = decoder.start(z[:4], 4), decoder.start(z, 6)
        begun = decoder.step(decoder.project_words(inputs[:, 0]), waiting)
        sentence, place = torch.arange(4), torch.zeros(4, dtype=torch.long)  # of every row
        for step in range(8):
            if step in (2, 3, 5):
                rows = torch.tensor({2: [1], 3: [3, 0], 5: [0, 1]}[step])
                others = torch.tensor({2: [4], 3: [5, 4], 5: [2, 0]}[step])
                state.replace(rows, begun if step == 5 else waiting, others)
                sentence[rows], place[rows] = others, int(step == 5)
            if step in (4, 6):  # in another order, too
                kept = torch.tensor([0, 1, 3] if step == 4 else [2, 0])
                state, sentence, place = state.select(kept), sentence[kept], place[kept]
            words = decoder.project_words(inputs[sentence, place])
            state = decoder.step(words, state)
            difference = (state.features - whole[sentence, place]).norm(dim=1)
            assert difference.max() < (1e-5 if precision == "f32" else 0.1)
            place += 1


@every_kind
def test_mixed_precision_samples_what_full_precision_does(kind: str) -> None:
    decoder, z = make_decoder(kind), torch.randn(3, DIM)
    inputs = torch.randint(4, VOCABULARY, (3, 20))
    with torch.no_grad():
        exact = by_stepping(decoder, z, inputs)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rounded = by_stepping(decoder, z, inputs)
            assert len(generate(decoder, z, max_length=5)) == 3
    assert (rounded - exact).norm() < 0.03 * exact.norm()


@torch.no_grad()
@every_variant
def test_greedy_writing_is_that_of_whole_prefixes(variant: str) -> None:
    decoder, z = make_decoder(variant), torch.randn(4, DIM)
    for row, words in zip(z, generate(decoder, z, max_length=20), strict=True):
        tokens = [BOS, *words, EOS][:21]
        logits = decoder.states(row[None], torch.tensor([tokens]))[0] @ decoder.output.weight.t()
        logits[:, [PAD, BOS]] = -torch.inf
        assert logits.argmax(1)[: len(tokens) - 1].tolist() == tokens[1:]


# --- cost ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["dilated-cnn", "transformer"])
def test_memory_of_an_evaluation_knows_no_number_of_samples(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder, batch = make_decoder(kind), make_batch(random_sentences(7))
    monkeypatch.setattr(base, "POSITIONS", 64)
    sizes: list[int] = []
    compute = decoder.states

    def record(z: Tensor | None, inputs: Tensor, condition: None) -> Tensor:
        sizes.append(inputs.numel())
        return compute(z, inputs, condition)

    monkeypatch.setattr(decoder, "states", record)
    decoder.log_prob_samples(torch.randn(7, 40, DIM), batch)
    assert max(sizes) <= 64
    needed = 40 * int(batch.target_mask.sum())
    assert sum(sizes) < 1.5 * needed  # padding beyond a chunk's longest sentence is not computed


@pytest.mark.parametrize("rows", [1, 3, 7, 1000])
@pytest.mark.parametrize("kind", ["lstm", "gru", "lstm skip"])
def test_how_many_samples_advance_together_does_not_matter(
    kind: str, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder, batch = make_decoder(kind), make_batch(random_sentences(7))
    z = torch.randn(7, 10, DIM)
    expected = decoder.log_prob_samples(z, batch)
    monkeypatch.setattr(recurrent, "ROWS", rows)
    most = 0
    advance = recurrent.advance

    def record(cell: object, given: Tensor, *state: Tensor) -> tuple[Tensor, Tensor]:
        nonlocal most
        most = max(most, len(given))
        return advance(cell, given, *state)  # type: ignore[arg-type]

    monkeypatch.setattr(recurrent, "advance", record)
    torch.testing.assert_close(decoder.log_prob_samples(z, batch), expected, atol=1e-5, rtol=1e-5)
    assert most <= rows


@every_kind
def test_a_sampled_word_costs_one_position(kind: str) -> None:
    """Whatever was written before: no layer reads more than one new position a sentence."""
    decoder, z = make_decoder(kind), torch.randn(5, DIM)
    read: list[int] = []
    for part in decoder.modules():
        if isinstance(part, torch.nn.Linear):
            part.register_forward_hook(
                lambda part, i, _: read.append(i[0].numel() // part.in_features)
            )
    with torch.no_grad():
        state = decoder.start(z, 5)
        costs = []
        for _ in range(40):
            read.clear()
            state = decoder.step(decoder.project_words(torch.full((5,), 6)), state)
            costs.append(list(read))
    assert all(cost == costs[0] for cost in costs)
    assert set(costs[0]) <= {5}


# --- recipes ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("recipe", "overrides", "named"),
    [
        ("vae", ["decoder.skip=true", "decoder.every_input=false"], None),
        ("vae", ["decoder.initial_state=null", "decoder.every_input=false"], "must see z"),
        ("cnn-vae", ["decoder.every_input=false"], "must see z"),
        ("cnn-vae", ["decoder.dilations=[]"], "decoder.dilations"),
        ("cnn-vae", ["decoder.dilations=[1, 0]"], "decoder.dilations"),
        ("cnn-vae", ["decoder.filter_width=1"], "decoder.filter_width"),
        ("cnn-vae", ["decoder.prefix=true"], "prefix"),
        ("cnn-vae", ["decoder.tied_softmax=true", "decoder.hidden_dim=8"], "tied_softmax needs"),
        ("transformer-vae", ["decoder.every_input=false"], None),
        ("transformer-vae", ["decoder.every_input=false", "decoder.prefix=false"], "must see z"),
        ("transformer-vae", ["decoder.heads=0"], "decoder.heads"),
        ("transformer-vae", ["decoder.hiden_dim=8"], "hidden_dim"),
    ],
)
def test_options_are_checked(recipe: str, overrides: list[str], named: str | None) -> None:
    if named is None:
        load_recipe(recipe, overrides)
    else:
        with pytest.raises(UserError, match=named) as caught:
            load_recipe(recipe, overrides)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["vae", "skip-vae", "cnn-vae", "transformer-vae"])
def test_widths_have_the_same_names_in_every_decoder(name: str) -> None:
    recipe = load_recipe(name, ["decoder.embedding_dim=6", "decoder.hidden_dim=10"])
    decoder = build_decoder(recipe.decoder, VOCABULARY, DIM)
    assert decoder.embedding.weight.shape == (VOCABULARY, 6)
    assert decoder.output.weight.shape == (VOCABULARY, 10)


@every_kind
def test_another_kind_keeps_the_options_that_both_have(kind: str) -> None:
    decoder = load_recipe("vae", [f"decoder.kind={kind}", "decoder.hidden_dim=64"]).decoder
    assert (decoder.kind, decoder.hidden_dim, decoder.output_dropout) == (kind, 64, 0.5)


@every_kind
def test_a_type_is_projected_when_it_is_first_written(kind: str) -> None:
    decoder = make_decoder(kind)
    read = ProjectedWords(decoder)
    drawn = [torch.tensor(words) for words in ([2, 2, 5], [5, 7, 2], [5], [9, 9, 9])]
    embedded: list[int] = []
    embed = decoder.embed
    with torch.no_grad():
        expected = [decoder.project_words(words) for words in drawn]

        def record(words: Tensor) -> Tensor:
            embedded.extend(words.tolist())
            return embed(words)

        decoder.embed = record
        for words, rows in zip(drawn, expected, strict=True):
            torch.testing.assert_close(read(words), rows)
    assert embedded == [2, 5, 7, 9]


@torch.no_grad()
def test_keys_and_values_are_copied_once_half_the_rows_are_gone() -> None:
    decoder, z = make_decoder("transformer"), torch.randn(8, DIM)
    inputs = torch.randint(4, VOCABULARY, (8, 9))
    whole = by_stepping(decoder, z, inputs)
    state, rows, copies = decoder.start(z, 8), torch.arange(8), 0
    for step in range(9):
        if step > 1:  # one leaves
            kept = torch.arange(len(rows)) != step % len(rows)
            before, state, rows = state.cache, state.select(kept), rows[kept]
            copies += state.cache is not before
        words = decoder.project_words(inputs[rows, step])
        again = decoder.step(words, state)
        state = decoder.step(words, state)  # the same from the same state, which stayed as it was
        torch.testing.assert_close(again.features, state.features)
        torch.testing.assert_close(state.features, whole[rows, step])
    assert len(rows) == 1
    assert copies == 2  # at 3 of 8, and at 1 of 3
