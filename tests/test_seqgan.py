"""A generator of responses against a discriminator: roll-outs, policy gradient, training."""

from __future__ import annotations

import itertools
import json
import random
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from cli_support import call_program
from lightning.pytorch import Callback, Trainer
from pydantic import TypeAdapter
from torch import Tensor
from training_support import SignalAt, fitted, last_payload, same, without_times

from uncollapse.config import ConstantScheduleConfig, DecoderConfig, Recipe
from uncollapse.data.batches import Batch, BucketedBatches
from uncollapse.data.corpus import Corpus
from uncollapse.data.tokenizer import BOS, EOS, PAD, UNK
from uncollapse.decoders import Decoder, build_decoder
from uncollapse.decoders.rollouts import Rollouts, as_responses, sample_with_rollouts
from uncollapse.errors import UserError
from uncollapse.loading import corpus_of, learn_tokenizer
from uncollapse.model import Model
from uncollapse.recipes import load_recipe
from uncollapse.strategies import build_stages
from uncollapse.training.adversarial import AdversarialCritic, adversarial_terms
from uncollapse.training.history import History
from uncollapse.training.policy_gradient import above_the_others, action_values, reinforce
from uncollapse.training.signals import Interrupted

A, B = 4, 5  # the words of a vocabulary of six
LENGTH = 3
KINDS = ["gru", "lstm", "transformer", "dilated-cnn"]


def tiny_decoder(kind: str = "gru", words: int = 6) -> Decoder:
    """A language model whose words have very different probabilities."""
    torch.manual_seed(3)
    sizes = {"embedding_dim": 4, "hidden_dim": 4, "init_scale": 0.8, "embedding_init_scale": 1.0}
    options = {"heads": 2} if kind == "transformer" else {}
    config = TypeAdapter(DecoderConfig).validate_python({"kind": kind, **sizes, **options})
    return build_decoder(config, words, 0).double().eval()


def likes_b(responses: Batch, _rows: Tensor) -> Tensor:
    """1 for a sentence with the word B in it, and something for short ones."""
    found = (responses.tokens == B).any(1).double()
    return found + 0.3 * (responses.lengths == 3).double()


def every_sentence() -> Tensor:
    """All that can be drawn in `LENGTH` steps, ``(N, LENGTH)``, padded."""
    rows = set()
    for words in itertools.product([UNK, EOS, A, B], repeat=LENGTH):
        end = words.index(EOS) + 1 if EOS in words else LENGTH
        rows.add((*words[:end], *[PAD] * (LENGTH - end)))
    return torch.tensor(sorted(rows))


def log_probs(decoder: Decoder, tokens: Tensor) -> Tensor:
    """log p of every token given those before it, ``(N, T)``, 0 at padding."""
    inputs = torch.cat([torch.full_like(tokens[:, :1], BOS), tokens[:, :-1]], 1)
    logits = decoder.states(None, inputs) @ decoder.output.weight.T
    logits = logits.index_fill(2, torch.tensor([PAD, BOS]), -torch.inf)
    scores = logits.log_softmax(-1).gather(2, tokens.clamp(min=1)[:, :, None]).squeeze(-1)
    return scores.masked_fill(tokens == PAD, 0)


def gradient(decoder: Decoder, loss: Tensor) -> Tensor:
    parts = torch.autograd.grad(loss, list(decoder.parameters()))
    return torch.cat([part.flatten() for part in parts])


# --- roll-outs ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_every_beginning_goes_on_in_its_own_ways(kind: str) -> None:
    decoder = tiny_decoder(kind, words=12)
    found = sample_with_rollouts(decoder, None, 20, rollouts=3, max_length=6)
    lengths = found.mask.sum(1)
    pairs = list(zip(found.parent.tolist(), found.prefix.tolist(), strict=True))
    wanted = [(row, n) for row, length in enumerate(lengths.tolist()) for n in range(1, length)]
    assert sorted(pairs) == sorted(wanted * 3)
    for (row, n), completion in zip(pairs, found.completions, strict=True):
        assert torch.equal(completion[:n], found.tokens[row, :n])
        assert completion[n] != PAD
    for tokens in torch.cat([found.tokens, found.completions]):
        words = tokens[tokens != PAD]
        assert not (words == BOS).any()
        assert not (words[:-1] == EOS).any()
        assert words[-1] == EOS or len(words) == 6
        assert (tokens[len(words) :] == PAD).all()


@pytest.mark.parametrize("kind", KINDS)
def test_sentences_and_completions_are_as_frequent_as_they_are_probable(kind: str) -> None:
    decoder = tiny_decoder(kind)
    torch.manual_seed(0)
    count = 4000
    found = sample_with_rollouts(decoder, None, count, rollouts=2, max_length=LENGTH)
    sentences = every_sentence()
    with torch.no_grad():
        scores = log_probs(decoder, sentences)
    probability = scores.sum(1).exp()
    assert probability.sum() == pytest.approx(1)
    drawn = (found.tokens[:, None] == sentences).all(2).double().mean(0)
    error = (probability * (1 - probability) / count).sqrt()
    assert ((drawn - probability).abs() <= 4.5 * error + 1e-9).all()
    # of what begins with the most frequent word that does not end the sentence
    first = int(found.completions[found.prefix == 1, 0].mode().values)
    begun = found.completions[(found.prefix == 1) & (found.completions[:, 0] == first)]
    ways = sentences[:, 0] == first
    rest = scores[ways, 1:].sum(1).exp()
    drawn = (begun[:, None] == sentences[ways]).all(2).double().mean(0)
    error = (rest * (1 - rest) / len(begun)).sqrt()
    assert len(begun) > 400
    assert ((drawn - rest).abs() <= 4.5 * error + 1e-9).all()


def test_sampled_tokens_become_responses() -> None:
    tokens = torch.tensor([[A, B, EOS], [A, B, A], [EOS, PAD, PAD]])
    responses = as_responses(tokens)
    assert responses.tokens.tolist() == [
        [BOS, A, B, EOS, PAD],
        [BOS, A, B, A, EOS],
        [BOS, EOS, PAD, PAD, PAD],
    ]
    assert responses.lengths.tolist() == [4, 5, 2]


def test_the_reward_of_a_token_is_that_of_what_comes_after_it() -> None:
    tokens = torch.tensor([[A, B, EOS], [A, EOS, PAD]])
    completions = torch.tensor([[A, A, A], [A, B, A], [A, B, EOS], [A, B, B], [A, A, B], [A, B, B]])
    parent, prefix = torch.tensor([0, 0, 0, 0, 1, 1]), torch.tensor([1, 1, 2, 2, 1, 1])
    found = Rollouts(tokens, completions, parent, prefix)
    seen: list[Tensor] = []

    def reward(responses: Batch, rows: Tensor) -> Tensor:
        seen.append(rows)
        return (responses.tokens == B).any(1).double()

    values = action_values(found, reward)
    assert values.tolist() == [[0.5, 1, 1], [1, 0, 0]]
    assert seen[0].tolist() == [0, 1, 0, 0, 0, 0, 1, 1]


def test_rewards_of_beginnings_are_the_probabilities_of_a_word_to_come() -> None:
    decoder = tiny_decoder()
    torch.manual_seed(1)
    found = sample_with_rollouts(decoder, None, 3000, rollouts=4, max_length=LENGTH)
    values = action_values(found, lambda texts, _: (texts.tokens == B).any(1).double())
    has_b = (found.tokens == B).long().cumsum(1) > 0
    assert (values[has_b & found.mask] == 1).all()
    sentences = every_sentence()
    with torch.no_grad():
        scores = log_probs(decoder, sentences)
    begins = sentences[:, 0] == A
    wanted = (scores[:, 1:].sum(1).exp() * (sentences == B).any(1))[begins].sum()
    mine = values[(found.tokens[:, 0] == A) & (found.mask.sum(1) > 1), 0]
    assert mine.mean() == pytest.approx(
        float(wanted), abs=4.5 * float(mine.std()) / len(mine) ** 0.5
    )


# --- the policy gradient ------------------------------------------------------------------


def test_the_policy_gradient_is_that_of_the_expected_reward() -> None:
    decoder = tiny_decoder()
    sentences = every_sentence()
    rewards = likes_b(as_responses(sentences), torch.arange(len(sentences)))
    exact = gradient(decoder, -(log_probs(decoder, sentences).sum(1).exp() * rewards).sum())
    torch.manual_seed(0)
    size, estimates = 5, []
    for _ in range(500):
        found = sample_with_rollouts(decoder, None, size, rollouts=2, max_length=LENGTH)
        advantages = above_the_others(action_values(found, likes_b), found.mask)
        loss = reinforce(decoder, None, None, found.tokens, advantages)
        estimates.append(gradient(decoder, loss.mean()))
    found = torch.stack(estimates)  # (N, P)
    error = found.std(0) / len(found) ** 0.5
    assert ((found.mean(0) - exact).abs() <= 5 * error + 1e-12).all()
    # along the gradient itself, sharp enough to tell a baseline that counts its own sentence
    along = found @ exact / exact.square().sum()
    sharpness = float(along.std()) / len(along) ** 0.5
    assert sharpness < 0.03
    assert float(along.mean()) == pytest.approx(1, abs=4.5 * sharpness)


def test_the_baseline_is_of_the_others_that_are_as_long() -> None:
    values = torch.tensor([[1.0, 2.0, 3.0], [3.0, 6.0, 9.0], [5.0, 9.0, 9.0]])
    mask = torch.tensor([[True, True, True], [True, True, False], [True, False, False]])
    above = above_the_others(values, mask)
    assert above.tolist() == [[-3, -4, 3], [0, 4, 0], [3, 0, 0]]


def test_a_rewarded_word_becomes_frequent() -> None:
    decoder = tiny_decoder(words=12)
    optimizer = torch.optim.Adam(decoder.parameters(), 0.02)

    def share() -> float:
        found = sample_with_rollouts(decoder, None, 400, rollouts=0, max_length=6)
        return float((found.tokens == B).any(1).double().mean())

    torch.manual_seed(0)
    before = share()
    for _ in range(40):
        found = sample_with_rollouts(decoder, None, 16, rollouts=2, max_length=6)
        values = action_values(found, lambda texts, _: (texts.tokens == B).any(1).double())
        advantages = above_the_others(values, found.mask)
        optimizer.zero_grad()
        reinforce(decoder, None, None, found.tokens, advantages).mean().backward()
        optimizer.step()
    assert before < 0.5
    assert share() > 0.9


# --- a whole model ------------------------------------------------------------------------

SMALL = [
    "condition.encoder.embedding_dim=6",
    "condition.encoder.hidden_dim=5",
    "condition.hidden_dim=7",
    "decoder.embedding_dim=6",
    "decoder.hidden_dim=8",
    "decoder.output_dropout=0.3",
    "decoder.embedding_dropout=0.2",
    "discriminator.encoder.embedding_dim=6",
    "discriminator.encoder.hidden_dim=5",
    "discriminator.hidden_dim=8",
    "discriminator.critic.learning_rate=0.01",
    "data.tokenizer=whitespace",
    "data.max_length=9",
    "data.context_turns=3",
    "objective.adversarial={weight: 1.0, rollouts: 2, max_length: 9, warmup_batches: 2}",
    "strategy.epochs=2",
    "strategy.learning_rate=0.01",
    "training.learning_rate=0.01",
    "training.max_epochs=3",
    "training.batch_size=16",
    "training.precision=f32",
]


def small_seqgan(*overrides: str) -> Recipe:
    return load_recipe("seqgan", [*SMALL, *overrides])


def dialogues(count: int = 12, seed: int = 0) -> list[dict[str, Any]]:
    """Turns of random words, each of which begins with the last word of the one before."""
    draw = random.Random(seed)
    words = [f"w{number}" for number in range(12)]
    found = []
    for _ in range(count):
        turns = ["w0"]
        for _ in range(4):
            rest = draw.choices(words, k=draw.randint(1, 5))
            turns.append(" ".join([turns[-1].split()[-1], *rest]))
        found.append({"turns": [{"speaker": "AB"[i % 2], "text": t} for i, t in enumerate(turns)]})
    return found


def small_corpora(recipe: Recipe) -> tuple[Corpus, Corpus, int]:
    tokenizer = learn_tokenizer(dialogues(), recipe.data)
    pair = (corpus_of(part, tokenizer, recipe.data) for part in (dialogues(), dialogues(5, 1)))
    return *pair, len(tokenizer)  # type: ignore[return-value]


def train(
    folder: Path, recipe: Recipe, *, resume: bool = False, callbacks: Any = ()
) -> tuple[Model, History]:
    training, validation, vocabulary = small_corpora(recipe)
    torch.manual_seed(5)
    model = Model(recipe, vocabulary)
    return model, fitted(
        model, recipe, training, validation, folder, resume=resume, callbacks=callbacks
    )


class Watch(Callback):
    """Notes, batch by batch, the stage and who changed."""

    def __init__(self) -> None:
        self.changes: list[tuple[str, set[str]]] = []
        self._before: dict[str, list[Tensor]] = {}

    def on_train_batch_start(self, _trainer: Trainer, module: Any, *_: Any) -> None:
        players = module.model.players()
        self._before = {name: [p.detach().clone() for p in ps] for name, ps in players.items()}

    def on_train_batch_end(self, trainer: Trainer, module: Any, *_: Any) -> None:
        players = module.model.players()
        changed = {name for name, ps in players.items() if not same(self._before[name], ps)}
        self.changes.append((Path(trainer.default_root_dir).name, changed))


def test_the_discriminator_learns_in_the_second_stage_alone(tmp_path: Path) -> None:
    watch = Watch()
    _, history = train(tmp_path / "run", small_seqgan(), callbacks=[watch])
    first = [changed for stage, changed in watch.changes if stage == "pretraining"]
    second = [changed for stage, changed in watch.changes if stage == "run"]
    assert first == [{"generation"}] * 8  # 60 turns, 16 a batch
    assert second == [{"generation", "critic"}] * 12
    assert len(history.rows) == 3
    assert history.best_epoch == 3  # the newest, whatever its score
    assert all(0 < float(row["train/reward"] or 0) < 1 for row in history.rows)
    assert not any("train/reward" in row for row in history.pretraining)


@pytest.mark.parametrize("epoch_batches", ["null", "5"])  # the corpus has four
def test_a_stopped_run_goes_on_as_if_nothing_had_happened(
    epoch_batches: str, tmp_path: Path
) -> None:
    recipe, cut = small_seqgan(f"training.epoch_batches={epoch_batches}"), tmp_path / "cut"
    whole, _ = train(tmp_path / "whole", recipe)
    for batch, stage in ((3, "cut/pretraining"), (6, "cut")):
        at = SignalAt(batch, signal.SIGTERM, tmp_path / stage)
        with pytest.raises(Interrupted):
            train(cut, recipe, callbacks=[at], resume=cut.exists())
    resumed, _ = train(cut, recipe, resume=True)
    assert same(whole.state_dict(), resumed.state_dict())
    payloads = [last_payload(tmp_path / name) for name in ("whole", "cut")]
    assert same(*payloads)
    assert set(payloads[0]["optimizers"]) == {"joint", "critic"}
    assert without_times(payloads[0]["state"]["rows"]) == without_times(
        payloads[1]["state"]["rows"]
    )


def test_likelihood_and_reward_go_through_one_reading_of_the_contexts(tmp_path: Path) -> None:
    with_gradients: list[int] = [0]

    class Count(Callback):
        def on_train_batch_start(self, _trainer: Trainer, module: Any, *_: Any) -> None:
            def note(*_: Any) -> None:
                with_gradients[-1] += torch.is_grad_enabled()

            self.hook = module.model.context.register_forward_hook(note)

        def on_train_batch_end(self, *_: Any) -> None:
            self.hook.remove()
            with_gradients.append(0)

    train(tmp_path / "run", small_seqgan(), callbacks=[Count()])
    assert with_gradients == [1] * 20 + [0]


def test_the_discriminator_tells_real_responses_from_sampled_ones() -> None:
    recipe = small_seqgan()
    training, _, vocabulary = small_corpora(recipe)
    torch.manual_seed(0)
    model = Model(recipe, vocabulary)
    assert model.discriminator is not None
    assert recipe.objective.adversarial is not None
    before = [p.detach().clone() for p in model.players()["generation"]]
    critic = AdversarialCritic(model, recipe.objective.adversarial)
    batches = batches_of(training)
    for _ in range(30):
        for batch in batches:
            assert critic.learn(batch)
    assert same(before, model.players()["generation"])
    real, sampled = [], []
    for batch in batches:
        condition = model.read(batch)
        assert condition is not None
        real.append(model.discriminator.probability(batch, condition.vector))
        terms = adversarial_terms(
            model, condition, batch.size, recipe.objective.adversarial, listens=False
        )
        assert terms.keys() == {"reward"}
        sampled.append(terms["reward"])
    assert torch.cat(real).mean() > 0.8
    assert torch.cat(sampled).mean() < 0.3


def batches_of(corpus: Corpus) -> list[Batch]:
    return list(BucketedBatches(corpus, 20, pool=1).epoch(0))


def test_the_discriminator_knows_the_context() -> None:
    recipe = small_seqgan()
    training, _, vocabulary = small_corpora(recipe)
    model = Model(recipe, vocabulary).eval()
    assert model.discriminator is not None
    batch = batches_of(training)[0]
    condition = model.read(batch)
    assert condition is not None
    vector = condition.vector
    whole = model.discriminator(batch, vector)
    assert not torch.allclose(whole, model.discriminator(batch, vector.flip(0)))
    assert torch.allclose(
        whole.sigmoid(), model.discriminator.probability(batch, vector), atol=1e-6
    )
    whole.sum().backward()
    assert all(p.grad is None for p in model.players()["generation"])


def test_the_generator_gives_the_discriminator_no_gradient() -> None:
    recipe = small_seqgan()
    training, _, vocabulary = small_corpora(recipe)
    model = Model(recipe, vocabulary)
    assert recipe.objective.adversarial is not None
    batch = batches_of(training)[0]
    terms = adversarial_terms(
        model, model.read(batch), batch.size, recipe.objective.adversarial, listens=True
    )
    terms["adversarial"].mean().backward()
    assert all(p.grad is None for p in model.players()["critic"])
    assert all(p.grad is not None for p in model.players()["generation"])
    assert model.decoder.training


def test_evaluation_never_asks_the_discriminator(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = small_seqgan()
    training, _, vocabulary = small_corpora(recipe)
    model = Model(recipe, vocabulary).eval()
    assert model.discriminator is not None
    monkeypatch.setattr(model.discriminator, "forward", None)
    terms = model(batches_of(training)[0])
    assert not terms.extra
    assert model.has_likelihood


LATENT = [
    "encoder={kind: gru, embedding_dim: 6, hidden_dim: 5}",
    "latents={z: {dim: 3, prior: {kind: conditional-gaussian, hidden_dim: 5}}}",
]


@pytest.mark.parametrize("conditional", [True, False])
def test_a_latent_variable_is_drawn_from_its_prior(tmp_path: Path, conditional: bool) -> None:
    nothing = ["condition=null", "data.context_turns=0", "latents.z.prior={kind: standard-normal}"]
    model, history = train(tmp_path, small_seqgan(*LATENT, *([] if conditional else nothing)))
    assert model.latent_dim == 3
    assert len(history.rows) == 3


def test_an_unconditional_discriminator_reads_sentences() -> None:
    recipe = small_seqgan("condition=null", "data.context_turns=0")
    model = Model(recipe, 12)
    assert recipe.objective.adversarial is not None
    terms = adversarial_terms(model, None, 3, recipe.objective.adversarial, listens=True)
    assert terms["adversarial"].shape == terms["reward"].shape == (3,)


def test_annealing_is_over_when_the_discriminator_comes() -> None:
    annealed = "objective.weight={kind: linear, start: 0.0, epochs: 2}"
    first, second = build_stages(small_seqgan(*LATENT, annealed))
    assert first.objective.weight.kind == "linear"
    assert first.objective.adversarial is None
    assert first.training.select_on == "objective"
    assert (first.training.max_epochs, first.training.learning_rate) == (2, 0.01)
    assert second.objective.weight == ConstantScheduleConfig(value=1)
    assert second.objective.adversarial is not None
    assert second.training.select_on == "last"


# --- recipes ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["discriminator=null"], "objective.adversarial needs discriminator"),
        (["objective.adversarial=null"], "discriminator needs objective.adversarial"),
        (["strategy={kind: joint}"], "discriminator needs strategy adversarial"),
        (["data.max_length=50"], "at most objective.adversarial.max_length"),
        (["data.max_length=null"], "at most objective.adversarial.max_length"),
        (["objective.adversarial.rollouts=0"], "rollouts"),
        (["objective.adversarial.rolouts=3"], "did you mean 'rollouts'"),
        (["discriminator.critic.steps=0"], "steps"),
        ([*LATENT, "latents.z.divergence={kind: dual}"], "divergence dual of latent z"),
        (["training.plateau={}"], "select_on last needs plateau: null"),
    ],
)
def test_what_does_not_fit_is_refused(overrides: list[str], words: str) -> None:
    with pytest.raises(UserError, match=words) as refused:
        load_recipe("seqgan", overrides)
    assert "\n" not in str(refused.value)


def test_the_packaged_recipe_trains_from_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [tmp_path / "train.jsonl", tmp_path / "validation.jsonl"]
    for file, count in zip(files, (12, 4), strict=True):
        file.write_text("".join(json.dumps(d) + "\n" for d in dialogues(count)), encoding="utf-8")
    sets = [part for value in SMALL for part in ("--set", value)]
    run = tmp_path / "run"
    arguments = ("train", "seqgan", "--train", files[0], "--validation", files[1], "--out", run)
    code, _, err = call_program(capsys, *arguments, *sets)
    assert code == 0, err
    assert (run / "pretraining" / "history.jsonl").exists()
    rows = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
    assert all("train/reward" in row for row in rows)
    code, out, err = call_program(
        capsys, "evaluate", run, "--data", files[1], "--metrics", "standard", "--json"
    )
    assert code == 0, err
    assert json.loads(out)["nll"]["value"] > 0
