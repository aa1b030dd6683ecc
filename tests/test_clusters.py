"""Clusters: agreement with labels, codes, words and names, and what is said of each."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from helpers import VOCABULARY, small_model
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import adjusted_mutual_info_score, homogeneity_completeness_v_measure

from uncollapse.data.corpus import Corpus
from uncollapse.data.tokenizer import SPECIAL_TOKENS, Tokenizer
from uncollapse.errors import UserError
from uncollapse.evaluation.agreement import CLUSTERS, cluster_probes
from uncollapse.evaluation.cluster_report import Cluster, Clusters
from uncollapse.evaluation.clustering import AGREEMENT, agreement_metrics
from uncollapse.evaluation.clusters import (
    assignments,
    choose_variable,
    find_clusters,
    parse_code,
    write_code,
)
from uncollapse.evaluation.codes import check_joint
from uncollapse.evaluation.keywords import distinctive_words, suggest_names
from uncollapse.evaluation.passes import posterior_pass
from uncollapse.evaluation.suite import probe
from uncollapse.model import Model

WEATHER = ["rain", "snow", "cold", "wind"]
SPORT = ["goal", "team", "match", "ball"]
FILLER = ["the", "a", "is", "of", "and", "to"]
OTHERS = [f"w{n}" for n in range(VOCABULARY - len(SPECIAL_TOKENS) - 14)]
TOKENIZER = Tokenizer.train([*WEATHER, *SPORT, *FILLER, *OTHERS], "whitespace", None)
GROUPS = "latents.z.groups=2"


def sentences(count: int, words: Sequence[str], seed: int) -> list[str]:
    random = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        own = random.choice(words, random.integers(1, 4))
        filler = random.choice(FILLER, random.integers(2, 6))
        found.append(" ".join(random.permutation([*own, *filler])))
    return found


def corpus(count: int = 60, missing: int = 0) -> Corpus:
    """Half of it weather, half sport; the first ``missing`` of each without a label."""
    half = count // 2
    texts = sentences(half, WEATHER, 0) + sentences(count - half, SPORT, 1)
    topics: list[str | None] = ["weather"] * half + ["sport"] * (count - half)
    topics[:missing] = topics[half : half + missing] = [None] * missing
    return Corpus.from_texts(texts, TOKENIZER, labels={"topic": topics})


class Told:
    """In place of a model's pass over a corpus: given log-probabilities and means."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **variables: torch.Tensor) -> None:
        found = posterior_pass(mixture(), corpus(2))
        assert found is not None
        self.found = found
        object.__setattr__(found, "variables", {n: v.float() for n, v in variables.items()})
        for place in ("clusters", "agreement"):
            name = f"uncollapse.evaluation.{place}.posterior_pass"
            monkeypatch.setattr(name, lambda *_, **__: found)


def mixture(*overrides: str) -> Model:
    return small_model("gm-vae", [GROUPS, *overrides])


def coded(monkeypatch: pytest.MonkeyPatch, log_probs: torch.Tensor) -> Model:
    """A model of one discrete latent `c`, whose posteriors are the given ``(N, M, K)``."""
    Told(monkeypatch, c=log_probs)
    _, groups, size = log_probs.shape
    model = small_model(
        "discrete-vae", [f"latents.c.groups={groups}", f"latents.c.posterior.categories={size}"]
    )
    monkeypatch.setattr(model, "variable_sizes", lambda: {"c": (groups, size)})
    return model


def sure(values: Sequence[int], size: int = 3, probability: float = 0.9) -> torch.Tensor:
    """Sentences ``(N, 1, K)`` that are as sure as that of one value each."""
    rest = (1 - probability) / (size - 1)
    q = torch.full((len(values), 1, size), rest)
    q[torch.arange(len(values)), 0, torch.tensor(values)] = probability
    return q.log()


# --- agreement with labels ------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(-1, 3), st.integers(0, 5)), min_size=1, max_size=60))
def test_agreement_is_the_usual_one(pairs: list[tuple[int, int]]) -> None:
    labels, codes = np.array(pairs).T
    known = labels >= 0
    if not known.any():
        with pytest.raises(UserError, match="no sentence has a label"):
            agreement_metrics(labels, codes, "codes")
        return
    found = agreement_metrics(labels, codes, "codes")
    assert tuple(found) == CLUSTERS
    labels, codes = labels[known], codes[known]
    homogeneity, completeness, _ = homogeneity_completeness_v_measure(labels, codes)
    assert found["cluster_homogeneity"].value == pytest.approx(homogeneity, abs=1e-9)
    assert found["cluster_completeness"].value == pytest.approx(completeness, abs=1e-9)
    adjusted = adjusted_mutual_info_score(labels, codes)
    assert found["cluster_ami"].value == pytest.approx(adjusted, abs=1e-6)
    largest = sum(np.bincount(labels[codes == code]).max() for code in np.unique(codes))
    assert found["cluster_purity"].value == pytest.approx(largest / len(labels))
    for metric in found.values():
        assert metric.samples == len(labels)
        assert metric.standard_error is not None
        assert math.isfinite(metric.standard_error)


def test_error_of_the_adjusted_information() -> None:
    random = np.random.default_rng(0)

    def draw() -> dict:
        labels = random.integers(0, 3, 300)
        codes = np.where(random.random(300) < 0.6, labels, random.integers(0, 3, 300))
        return agreement_metrics(labels, codes, "codes")

    draws = [draw() for _ in range(60)]
    for name in CLUSTERS:
        spread = np.std([found[name].value for found in draws], ddof=1)
        told = np.mean([found[name].standard_error for found in draws])
        assert told == pytest.approx(spread, rel=0.35), name


def test_probe_of_clusters(monkeypatch: pytest.MonkeyPatch) -> None:
    labelled = corpus(40, missing=5)
    topics = labelled.labels
    assert topics is not None
    known = topics[topics >= 0]
    model = coded(monkeypatch, sure(known.tolist()))
    found = probe(model, TOKENIZER, labelled, metrics=["clusters"])
    assert tuple(found) == CLUSTERS
    for metric in found.values():
        assert metric.value == pytest.approx(1)
        assert metric.samples == 30
        assert "joint code of c; 2 in use" in metric.estimator
    alone = cluster_probes(model, labelled, metrics=["cluster_ami"])
    assert alone["cluster_ami"] == found["cluster_ami"]


def test_what_the_probe_of_clusters_needs() -> None:
    bare = Corpus.from_texts(["rain", "goal"], TOKENIZER)
    dashes = cluster_probes(small_model("vae"), bare)
    assert [dash.value for dash in dashes.values()] == [None] * 4
    for name, dash in dashes.items():
        assert dash.estimator.startswith("none: the model has no discrete variable")
        assert dash.definition == AGREEMENT[name]
    with pytest.raises(UserError, match="--label-column"):
        cluster_probes(mixture(), bare)
    with pytest.raises(UserError, match="one class only"):
        cluster_probes(mixture(), Corpus.from_texts(["a"], TOKENIZER, labels={"t": ["x"]}))
    with pytest.raises(UserError, match="did you mean 'cluster_purity'"):
        cluster_probes(mixture(), corpus(), metrics=["purity"])


# --- codes ----------------------------------------------------------------------------------


def test_assignments_by_hand() -> None:
    q = torch.tensor([[[0.1, 0.9], [0.6, 0.4]], [[0.8, 0.2], [0.5, 0.5]], [[0.3, 0.7], [1, 0]]])
    codes, numbers = assignments(q.log())
    assert codes.tolist() == [[0, 0], [1, 0]]
    assert numbers.tolist() == [1, 0, 1]
    codes, numbers = assignments(q.log(), 1)
    assert codes.tolist() == [[0]]
    assert numbers.tolist() == [0, 0, 0]


def test_codes_are_read_and_written() -> None:
    assert parse_code("2-*-4", (3, 5)) == (2, -1, 4)
    assert parse_code(" 3 ", (1, 5)) == (3,)
    assert parse_code("3", (4, 5), index=2) == (3,)
    assert write_code((2, -1, 4)) == "2-*-4"
    for text, size, index, message in (
        ("2-4", (3, 5), None, "a code has 3 values here, e.g. 0-0-0, not '2-4'"),
        ("5", (1, 5), None, "'5' is none of the values 0 … 4"),
        ("-1", (1, 5), None, "a code has 1 value here, e.g. 0,"),
        ("x", (1, 5), None, "'x' is none of the values"),
        ("²", (1, 5), None, "is none of the values"),
        ("1-2", (2, 5), 0, "a code has 1 value here"),
        ("1", (2, 5), 2, "has indexes 0 … 1, no 2"),
        ("", (20, 5), None, "a code has 20 values here, e.g. 0-0-0-…, not ''"),
    ):
        with pytest.raises(UserError) as caught:
            parse_code(text, size, index)
        assert message in str(caught.value)


def test_choice_of_a_variable() -> None:
    assert choose_variable(mixture()) == "z.component"
    assert choose_variable(small_model("semi-vae")) == "c"
    discrete = small_model("dcm-vae")
    assert next(iter(discrete.variable_sizes())) == "z"
    assert choose_variable(discrete) == "z.component"
    assert choose_variable(discrete, "z") == "z"
    with pytest.raises(UserError, match=r"did you mean 'z\.component'"):
        choose_variable(mixture(), "z.components")
    with pytest.raises(UserError, match="no discrete variable"):
        choose_variable(small_model("vae"))


def test_joint_codes_that_gather_nothing() -> None:
    check_joint(1000, 1000, (2, 5))  # few there can be
    check_joint(500, 1000, (20, 5))
    with pytest.raises(UserError, match=r"501 different joint codes.*--index 0 … 19"):
        check_joint(501, 1000, (20, 5))


# --- words and names ------------------------------------------------------------------------


def test_words_that_set_groups_apart() -> None:
    texts = sentences(200, WEATHER, 0) + sentences(300, SPORT, 1)
    groups = np.repeat([0, 1], [200, 300])
    weather, sport = distinctive_words(texts, groups, 10)
    assert set(weather[:4]) == set(WEATHER)
    assert set(sport[:4]) == set(SPORT)
    # what everybody says is nowhere near the top
    assert len(set(weather) & set(FILLER)) <= 3
    assert not set(weather) & set(sport)


def test_words_are_cleaned() -> None:
    texts = ["Rain, <unk> RAIN! (rain) 12 ... don't Don't", 'sun <unk> <unk> "sun"']
    first, second = distinctive_words(texts, np.array([0, 1]), 9)
    assert sorted(first) == ["don't", "rain"]
    assert second == ["sun"]


def test_nothing_sets_a_lone_or_wordless_group_apart() -> None:
    assert distinctive_words(["rain cold", "rain"], np.array([0, 0]), 5) == [[]]
    assert distinctive_words(["rain", "rain"], np.array([0, 1]), 5) == [[], []]
    assert distinctive_words(["12", "?"], np.array([0, 1]), 5) == [[], []]


def test_words_do_not_depend_on_the_order_of_sentences() -> None:
    texts = sentences(40, WEATHER, 0) + sentences(40, SPORT, 1)
    groups = np.repeat([0, 1], 40)
    order = np.random.default_rng(0).permutation(80)
    shuffled = distinctive_words([texts[row] for row in order], groups[order], 8)
    assert shuffled == distinctive_words(texts, groups, 8)


def test_names_are_short_and_unique() -> None:
    words = [["rain", "cold", "wind"], ["cold", "rain", "snow"], ["cold", "rain"], [], ["goal"]]
    none: list[dict[str, int]] = [{}] * 5
    codes = ["0", "1", "2", "3", "4"]
    assert suggest_names(words, none, codes) == [
        "rain cold", "cold rain snow", "cold rain (2)", "cluster 3", "goal",
    ]  # fmt: skip
    labels = [{"bad weather": 8, "sport": 2}, {"bad weather": 9}, {"bad weather": 3, "sport": 1},
              {"bad weather": 1}, {"sport": 1}]  # fmt: skip
    assert suggest_names(words, labels, codes) == [
        "bad weather", "bad weather: cold", "cold rain", "bad weather (3)", "sport",
    ]  # fmt: skip


# --- clusters -------------------------------------------------------------------------------


def test_clusters_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["rain rain", "snow is cold", "rain rain", "the goal", "a cold wind", "of and to"]
    labels = ["weather", "weather", None, "sport", "weather", None]
    some = Corpus.from_texts(texts, TOKENIZER, labels={"topic": labels})
    q = sure([2, 2, 2, 0, 2, 1])
    q[0] = torch.tensor([0.01, 0.01, 0.98]).log()
    q[2] = torch.tensor([0.02, 0.02, 0.96]).log()  # the same text, seen a second time
    q[4] = torch.tensor([0.4, 0.05, 0.55]).log()
    model = coded(monkeypatch, q)
    found = find_clusters(model, some, TOKENIZER, names={"2": "sky", "7": "no such code"})
    assert (found.variable, found.index, found.sentences, found.empty) == ("c", None, 6, 0)
    assert [cluster.code for cluster in found.clusters] == [(2,), (0,), (1,)]  # ties by code
    first, second, third = found.clusters
    assert (first.size, first.share, first.name) == (4, pytest.approx(4 / 6), "sky")
    assert [text for text, _ in first.confident] == ["rain rain", "snow is cold", "a cold wind"]
    assert [share for _, share in first.confident] == pytest.approx([0.98, 0.9, 0.55])
    # the mean posterior is (.12, .03, .85): that of "snow is cold" is nearest
    assert first.typical == ["snow is cold", "rain rain", "a cold wind"]
    assert first.labels == {"weather": 3}
    assert first.suggestion == "weather"
    assert {"rain", "cold"} <= set(first.words)
    assert second.labels == {"sport": 1}
    assert second.name is None
    assert third.labels == {}
    assert third.suggestion == "and of"
    assert tuple(found.agreement) == CLUSTERS
    assert found.agreement["cluster_homogeneity"].value == pytest.approx(1)
    assert found.agreement["cluster_homogeneity"].samples == 4


def test_typical_of_a_component_is_where_it_is_dense() -> None:
    model, some = mixture(), corpus()
    found = find_clusters(model, some, TOKENIZER, index=1, examples=3)
    passed = posterior_pass(model, some)
    assert passed is not None
    prior = model.get_submodule("latents.z.prior")
    with torch.no_grad():
        density = prior.component_log_prob(passed.means)[:, 1]  # (N, K)
    codes = passed.variables["z.component"][:, 1].argmax(-1)
    assert sum(cluster.size for cluster in found.clusters) == 60
    assert sum(cluster.share for cluster in found.clusters) == pytest.approx(1)
    for cluster in found.clusters:
        rows = torch.nonzero(codes == cluster.code[0]).squeeze(1)
        assert len(rows) == cluster.size
        best = rows[density[rows, cluster.code[0]].argmax()]
        assert cluster.typical[0] == TOKENIZER.decode(some.sentence(int(best)).tolist())
        assert len(set(cluster.typical)) == len(cluster.typical) <= 3
        for _, share in cluster.confident:
            assert 0.2 <= share <= 1


def test_joint_and_single_codes_are_of_one_kind() -> None:
    model, some = mixture(), corpus()
    groups, values = model.variable_sizes()["z.component"]
    assert groups == 2
    joint = find_clusters(model, some, TOKENIZER)
    assert joint.empty == values**2 - len(joint.clusters)
    assert all(len(cluster.code) == 2 for cluster in joint.clusters)
    for place in (0, 1):
        single = find_clusters(model, some, TOKENIZER, index=place)
        assert single.empty == values - len(single.clusters)
        for cluster in single.clusters:
            gathered = [c.size for c in joint.clusters if c.code[place] == cluster.code[0]]
            assert sum(gathered) == cluster.size


@pytest.mark.parametrize("name", ["dcm-vae", "semi-vae-mi", "dbm-vae", "gamma-mixture-vae"])
def test_every_kind_of_variable(name: str) -> None:
    model = small_model(name)
    for variable, (indexes, _) in model.variable_sizes().items():
        found = find_clusters(model, corpus(), TOKENIZER, variable=variable, index=indexes - 1)
        assert sum(cluster.size for cluster in found.clusters) == 60
        assert len({cluster.suggestion for cluster in found.clusters}) == len(found.clusters)


def test_a_sentence_does_not_feel_its_neighbours() -> None:
    model, some = mixture(), corpus()
    long = Corpus.from_texts(
        [*(TOKENIZER.decode(some.sentence(i).tolist()) for i in range(60)), " ".join(FILLER * 9)],
        TOKENIZER,
    )
    with_long = find_clusters(model, long, TOKENIZER, index=0, examples=60)
    alone = find_clusters(model, some, TOKENIZER, index=0, examples=60)
    extra = " ".join(FILLER * 9)

    def gathered(clusters: Clusters) -> dict[tuple[int, ...], dict[str, float]]:
        return {c.code: {t: p for t, p in c.confident if t != extra} for c in clusters.clusters}

    for code, shares in gathered(alone).items():
        assert gathered(with_long)[code] == pytest.approx(shares, abs=1e-5)


def test_it_is_the_same_every_time() -> None:
    model = mixture()
    first = find_clusters(model, corpus(), TOKENIZER)
    torch.rand(3)
    assert find_clusters(model, corpus(), TOKENIZER) == first


def test_one_sentence_and_one_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    lone = Corpus.from_texts(["the rain"], TOKENIZER)
    found = find_clusters(mixture(), lone, TOKENIZER)
    (cluster,) = found.clusters
    assert (cluster.size, cluster.share) == (1, 1.0)
    assert cluster.typical == ["the rain"]
    assert found.agreement == {}
    model = coded(monkeypatch, sure([1] * 60))
    found = find_clusters(model, corpus(), TOKENIZER)
    (cluster,) = found.clusters
    assert cluster.words == []
    assert cluster.suggestion == "cluster 1"
    assert cluster.labels == {"sport": 30, "weather": 30}
    assert found.agreement["cluster_ami"].value == pytest.approx(0)
    assert found.agreement["cluster_completeness"].value == 1


def test_labels_that_are_all_missing() -> None:
    none = Corpus.from_texts(
        ["rain", "goal"], TOKENIZER, labels={"topic": [None, None]}, classes={"topic": ["x"]}
    )
    found = find_clusters(mixture(), none, TOKENIZER)
    assert found.agreement == {}
    assert all(cluster.labels == {} for cluster in found.clusters)


def test_bad_requests() -> None:
    model = mixture("latents.z.groups=20")
    for options, message in (
        ({"variable": "zz"}, "unknown variable 'zz'"),
        ({"index": 20}, "z.component has indexes 0 … 19, no 20"),
        ({"index": -1}, "no -1"),
        ({"examples": 0}, "examples must be at least 1"),
        ({"words": 0}, "words must be at least 1"),
        ({"seed": -1}, "seed"),
        ({}, "look at one index, --index 0 … 19"),
    ):
        with pytest.raises(UserError) as caught:
            find_clusters(model, corpus(), TOKENIZER, **options)
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)


# --- as they are shown ----------------------------------------------------------------------


def test_for_a_terminal() -> None:
    cluster = Cluster(
        (2, 0), 1234, 0.5, ["the rain " * 20, "snow"], [("snow", 0.98)], ["rain", "snow"],
        {"weather": 1000, "sport": 34}, "weather", None,
    )  # fmt: skip
    named = Cluster((1, 1), 1, 0.25, ["goal"], [("goal", 1.0)], [], {}, "goal", "sports")
    clusters = Clusters("z.component", None, 2468, [cluster, named], 23, {})
    text = clusters.to_text()
    lines = text.splitlines()
    assert lines[0] == "z.component, all indexes together: 2 of 25 codes in use by 2,468 sentences"
    assert all(len(line) <= 100 for line in lines)
    assert lines[2] == "code           size  share  name"
    assert lines[4] == "2-0           1,234  50.0%  (weather)"
    assert lines[5] == "  words     rain, snow"
    assert lines[6] == "  labels    weather 1,000, sport 34"
    assert lines[7].startswith("  typical   the rain")
    assert lines[7].endswith("…")
    assert lines[8] == "            snow"
    assert lines[9] == "  confident 0.98 snow"
    assert lines[11] == "1-1               1  25.0%  sports"


def test_for_json() -> None:
    found = find_clusters(mixture(), corpus(), TOKENIZER)
    again = json.loads(json.dumps(found.to_dict()))
    assert again["variable"] == "z.component"
    assert again["index"] is None
    assert set(again["agreement"]) == set(CLUSTERS)
    for cluster, own in zip(again["clusters"], found.clusters, strict=True):
        assert cluster["code"] == write_code(own.code)
        assert cluster["confident"][0]["text"] == own.confident[0][0]
        assert cluster["labels"] == own.labels
