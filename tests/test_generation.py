"""Writing sentences: every draw has the probability that the decoder gives it."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from helpers import VOCABULARY, make_batch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter
from torch import Tensor

from uncollapse.config import DecoderConfig
from uncollapse.data.tokenizer import BOS, EOS, PAD
from uncollapse.decoders import KINDS, Decoder, State, build_decoder, vocabulary
from uncollapse.decoders.generation import generate
from uncollapse.decoders.vocabulary import BLOCK, inverse_cdf
from uncollapse.errors import UserError

DIM = 3
LARGEST_UNIFORM = 1 - 2**-24  # of torch.rand in f32


def make_decoder(
    kind: str = "lstm", words: int = VOCABULARY, dim: int = DIM, scale: float = 1.0
) -> Decoder:
    torch.manual_seed(1)
    values = {"kind": kind, "embedding_dim": 5, "hidden_dim": 8, "init_scale": scale}
    config = TypeAdapter(DecoderConfig).validate_python(values)
    return build_decoder(config, words, dim).eval()


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def sample(decoder: Decoder, z: Tensor | None, seed: int = 0, **options):
    return generate(decoder, z, method="sample", generator=seeded(seed), **options)


# --- the draw -----------------------------------------------------------------------------


@settings(max_examples=60)
@given(
    st.sampled_from([1, 2, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 5]),
    st.integers(0, 2**31 - 1),
    st.floats(0, 0.95),
)
def test_inverse_cdf_on_a_grid_of_uniforms(size: int, seed: int, zeros: float) -> None:
    """On an even grid of uniforms each word comes up as often as its probability says, ± 1."""
    torch.manual_seed(seed)
    draws = 2000
    weights = torch.rand(size) * (torch.rand(size) >= zeros)
    weights[torch.randint(size, ())] = 0.5  # at least one
    uniforms = (torch.arange(draws) + 0.5) / draws
    chosen = inverse_cdf(weights.expand(draws, size), uniforms)
    counts = torch.bincount(chosen, minlength=size)
    assert len(counts) == size
    assert (counts - draws * weights / weights.sum()).abs().max() <= 1.01
    assert not counts[weights == 0].any()
    assert (chosen.diff() >= 0).all()  # monotone: it is the inverse of the distribution function


def test_inverse_cdf_on_random_uniforms() -> None:
    torch.manual_seed(0)
    draws, size = 100_000, 300
    weights = torch.rand(size) ** 3
    p = weights / weights.sum()
    chosen = inverse_cdf(weights.expand(draws, size), torch.rand(draws, generator=seeded(5)))
    counts = torch.bincount(chosen, minlength=size)
    chi_square = ((counts - draws * p).square() / (draws * p))[p > 1e-5].sum().item()
    degrees = int((p > 1e-5).sum()) - 1
    assert abs(chi_square - degrees) < 4.5 * (2 * degrees) ** 0.5


@given(st.integers(1, 3 * BLOCK), st.integers(0, 2**31 - 1), st.floats(0, 1))
def test_extreme_uniforms_never_draw_what_has_no_weight(size: int, seed: int, zeros: float) -> None:
    torch.manual_seed(seed)
    weights = torch.rand(4, size) * 10 ** torch.empty(4, size).uniform_(-8, 8)
    weights *= torch.rand(4, size) >= zeros
    weights[torch.arange(4), torch.randint(size, (4,))] = 1.0
    rows = torch.arange(4)
    for uniform in (0.0, 2**-24, 0.5, LARGEST_UNIFORM):
        chosen = inverse_cdf(weights, torch.full((4,), uniform))
        assert (weights[rows, chosen] > 0).all()
    first = (weights > 0).float().argmax(1)
    assert torch.equal(inverse_cdf(weights, torch.zeros(4)), first)


# --- greedy -------------------------------------------------------------------------------


def greedy_by_hand(decoder: Decoder, z: Tensor, length: int) -> list[int]:
    """The most probable next word, by scoring every continuation with the training path."""
    words: list[int] = []
    allowed = [word for word in range(VOCABULARY) if word not in (PAD, BOS)]
    while len(words) < length:
        batch = make_batch([[*words, word] for word in allowed])
        batch.lengths -= 1  # without </s>
        best = allowed[int(decoder.log_prob(z.expand(batch.size, DIM), batch).argmax())]
        if best == EOS:
            break
        words.append(best)
    return words


@pytest.mark.parametrize("kind", KINDS)
def test_greedy_takes_the_most_probable_word(kind: str) -> None:
    decoder = make_decoder(kind)
    with torch.no_grad():
        decoder.output.weight[EOS] += 0.15
        decoder.output.weight[[PAD, BOS]] *= 5  # would win, but are never written
    z = torch.randn(6, DIM) * 2
    found = generate(decoder, z, max_length=6)
    assert found == [greedy_by_hand(decoder, row, 6) for row in z]
    assert len({tuple(row) for row in found}) > 1


def test_cold_samples_are_greedy() -> None:
    decoder, z = make_decoder(), torch.randn(20, DIM) * 2
    greedy = generate(decoder, z, max_length=8)
    assert sample(decoder, z, temperature=1e-4, max_length=8) == greedy
    assert sample(decoder, z, top_p=1e-6, max_length=8) == greedy
    assert sample(decoder, z, max_length=8) != greedy


# --- samples ------------------------------------------------------------------------------


def exact_probabilities(decoder: Decoder, z: Tensor, length: int) -> dict[tuple, float]:
    """Probability of every sentence of up to ``length`` words, cut ones included."""
    words = [w for w in range(decoder.output.out_features) if w not in (PAD, BOS)]
    table = decoder.project_words(torch.arange(decoder.output.out_features))
    found: dict[tuple, float] = {}

    def grow(prefix: tuple, probability: float, state, last: int) -> None:
        if len(prefix) == length:
            found[prefix] = probability
            return
        state = decoder.step(table[[last]], state)
        logits = decoder.output(state.features)[0, words]  # <pad> and <s> are never written
        for word, p in zip(words, logits.double().softmax(0).tolist(), strict=True):
            if word == EOS:
                found[prefix] = probability * p
            else:
                grow((*prefix, word), probability * p, state, word)

    with torch.no_grad():
        grow((), 1.0, decoder.start(z[None], 1), BOS)
    return found


@pytest.mark.parametrize(
    ("kind", "batch_size"),
    [("lstm", 512), ("lstm", 100_000), ("dilated-cnn", 512), ("transformer", 512)],
)
def test_samples_have_their_exact_probabilities(kind: str, batch_size: int) -> None:
    decoder, draws = make_decoder(kind, words=7), 20_000
    z = torch.randn(DIM)
    exact = exact_probabilities(decoder, z, 2)
    assert sum(exact.values()) == pytest.approx(1)
    assert len(exact) == 1 + 4 + 16
    found = sample(decoder, z.expand(draws, DIM), max_length=2, batch_size=batch_size)
    for sentence, p in exact.items():
        count = sum(tuple(row) == sentence for row in found)
        assert abs(count - draws * p) < 4.5 * (draws * p * (1 - p)) ** 0.5 + 1


def test_temperature_divides_the_logits() -> None:
    decoder, z = make_decoder(), torch.randn(10, DIM)
    warm = sample(decoder, z, seed=3, temperature=0.5)
    with torch.no_grad():
        decoder.output.weight *= 2
    assert sample(decoder, z, seed=3) == warm


@settings(max_examples=30)
@given(
    st.sampled_from([5, 60, 257, 900]),
    st.floats(0.01, 0.999),
    st.floats(0.05, 8),  # at 0 all words tie, and either is right
    st.integers(0, 2**31 - 1),
)
def test_nucleus_is_the_smallest_set_and_is_drawn_from_rightly(
    size: int, top_p: float, sharpness: float, seed: int
) -> None:
    torch.manual_seed(seed)
    draws = 1000
    logits = torch.randn(size) * sharpness
    uniforms = (torch.arange(draws) + 0.5) / draws
    chosen = vocabulary._draw(logits.repeat(draws, 1), uniforms, 1.0, top_p)
    p, order = logits.double().softmax(0).sort(descending=True)
    nucleus = int((p.cumsum(0) - p < top_p - 1e-6).sum())  # words before reach less than top_p
    counts = torch.bincount(chosen, minlength=size)[order]
    assert not counts[nucleus + 1 :].any()  # + 1: f32 may fall on the other side of the border
    share = counts[:nucleus] / draws
    expected = p[:nucleus] / p[:nucleus].sum()
    slack = p[nucleus] if nucleus < size and counts[nucleus] else 0.0
    assert (share - expected).abs().max() <= 1.01 / draws + slack + 1e-4


@settings(max_examples=60)
@given(
    st.integers(1, 900),
    st.floats(0.001, 1 - 1e-9),
    st.floats(0, 30),
    st.integers(0, 2**31 - 1),
)
def test_the_least_of_a_nucleus_is_that_of_a_full_sort(
    size: int, top_p: float, sharpness: float, seed: int
) -> None:
    torch.manual_seed(seed)
    logits = (torch.randn(7, size) * sharpness).bfloat16().double()  # some are alike
    weights = logits.softmax(1)
    wanted = top_p * weights.sum(1, keepdim=True)
    found = vocabulary._least_by_kind(weights, wanted)
    expected = vocabulary._least_before(weights.sort(1, descending=True).values, wanted, 0.0)
    if top_p < 0.999:
        assert torch.equal(found, expected)
    kept = weights >= found
    assert ((weights * kept).sum(1, keepdim=True) > wanted - 1e-12).all()
    heavier = (weights * (weights > found)).sum(1, keepdim=True)
    assert (heavier < wanted + 1e-12).all()


def test_what_is_no_number_stops_no_draw() -> None:
    logits = torch.randn(3, 300)
    logits[1, 7] = torch.nan
    uniforms = torch.rand(3)
    found = vocabulary._draw(logits.clone(), uniforms, 1.0, 0.9)
    others = vocabulary._draw(logits[[0, 2]], uniforms[[0, 2]], 1.0, 0.9)
    assert torch.equal(found[[0, 2]], others)


# --- rows are strangers to each other -----------------------------------------------------


@pytest.mark.parametrize("top_p", [1.0, 0.8])
@pytest.mark.parametrize("kind", KINDS)
def test_a_row_depends_on_its_own_numbers_only(kind: str, top_p: float) -> None:
    decoder, z = make_decoder(kind), torch.randn(23, DIM)
    words = [word for row in sample(decoder, z, max_length=12) for word in row]
    with torch.no_grad():  # rows finish early, each in its own step
        decoder.output.weight[EOS] = 0.95 * decoder.output.weight[max(words, key=words.count)]
    whole = sample(decoder, z, top_p=top_p, max_length=12)
    assert len({len(row) for row in whole}) > 3
    for batch_size in (1, 5, 22):
        parts = sample(decoder, z, top_p=top_p, max_length=12, batch_size=batch_size)
        assert parts == whole
    # the first rows do not know what follows them
    assert sample(decoder, z[:7], top_p=top_p, max_length=12) == whole[:7]
    assert sample(decoder, z, seed=1, top_p=top_p, max_length=12) != whole


@pytest.mark.parametrize("kind", KINDS)
def test_sentences_that_wait_keep_the_batch_full(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder, z = make_decoder(kind), torch.randn(60, DIM)
    with torch.no_grad():
        decoder.output.weight[EOS] = 0.95 * decoder.output.weight[4]
    expected = sample(decoder, z, max_length=9, batch_size=60)
    rows: list[int] = []
    step = decoder.step

    def record(words: Tensor, state: State) -> State:
        rows.append(len(words))
        return step(words, state)

    monkeypatch.setattr(decoder, "step", record)
    assert sample(decoder, z, max_length=9, batch_size=16) == expected
    read = sum(len(words) + (len(words) < 9) for words in expected)
    full = rows.count(16)
    assert rows[:full] == [16] * full
    assert 16 * full >= read - 16 * 9  # all but what the last sentences need
    assert sum(rows) <= 1.3 * read
    assert len(set(rows)) <= 10  # of few sizes


def test_sentences_end_at_the_end_or_at_max_length() -> None:
    decoder, z = make_decoder(), torch.randn(50, DIM)
    for length in (1, 3):
        found = sample(decoder, z, max_length=length)
        assert max(map(len, found)) <= length
        assert not {PAD, BOS, EOS} & {word for row in found for word in row}
    with torch.no_grad():
        decoder.output.weight[EOS] = 0
        decoder.output.weight[EOS + 1 :] = 0
        decoder.get_parameter("cell.bias_ih_l0").zero_()
    assert {len(row) for row in sample(decoder, z, max_length=3)} == {0, 1, 2, 3}


def test_language_model_writes_as_many_rows_as_asked() -> None:
    decoder = make_decoder(dim=0)
    found = sample(decoder, None, rows=9, max_length=5)
    assert len(found) == 9
    assert sample(decoder, None, rows=9, max_length=5, batch_size=4) == found
    assert generate(decoder, None, rows=0) == []


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"temperature": 0.0}, "temperature"),
        ({"temperature": -1.0}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"temperature": float("inf")}, "temperature"),
        ({"top_p": 0.0}, "top_p"),
        ({"top_p": 1.1}, "top_p"),
        ({"top_p": float("nan")}, "top_p"),
        ({"max_length": 0}, "max_length"),
        ({"method": "gredy"}, "did you mean 'greedy'"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, object], named: str) -> None:
    with pytest.raises(UserError, match=named):
        generate(make_decoder(), torch.zeros(1, DIM), **options)  # type: ignore[arg-type]


def test_exact_enumeration_covers_what_it_says() -> None:
    exact = exact_probabilities(make_decoder(words=7), torch.zeros(DIM), 2)
    words = [1, 4, 5, 6]
    assert set(exact) == {(), *product(words), *product(words, words)}


def test_sentences_may_draw_from_generators_of_their_own() -> None:
    decoder = make_decoder()
    z = torch.randn(5, DIM, generator=seeded(0))

    def write(rows: list[int], batch_size: int) -> list[list[int]]:
        own = [seeded(row) for row in range(5)]
        kept = [own[row] for row in rows]
        return generate(decoder, z[rows], method="sample", generator=kept, batch_size=batch_size)

    found = write([0, 1, 2, 3, 4], 5)
    assert found == write([0, 1, 2, 3, 4], 2)
    assert [found[3], found[1]] == write([3, 1], 5)
    shared = seeded(7)
    both = generate(decoder, z[:4], method="sample", generator=[shared] * 4, batch_size=3)
    assert both == sample(decoder, z[:4], 7)
