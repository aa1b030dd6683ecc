"""Encoding, decoding and interpreting responses, each in its own context."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dialogue_models import TURNS, WHOLE, WITH_LATENT, dialogue_model

from uncollapse import TextVAE
from uncollapse.errors import UserError


@pytest.mark.parametrize("kind", [*WITH_LATENT, "no context"])
def test_responses_are_encoded_and_decoded_in_their_own_contexts(kind: str) -> None:
    vae = dialogue_model(kind)
    told = kind != "no context"
    speakers = ["A", "B"] * 3
    rows = [
        {"context": WHOLE["turns"][:place], "response": text, "speaker": speakers[place]}
        for place, text in enumerate(TURNS)
    ]
    vectors = vae.encode([WHOLE])
    assert vectors.shape == (len(TURNS), vae.model.latent_dim)
    np.testing.assert_allclose(vectors, vae.encode(rows), atol=1e-5)
    np.testing.assert_allclose(vectors[0], vae.encode(TURNS)[0], atol=1e-5)
    same = np.abs(vectors[1:] - vae.encode(TURNS)[1:]).max()
    assert same > 1e-3 if told else same < 1e-5
    written = vae.reconstruct([WHOLE], max_length=7)
    assert written == vae.reconstruct(rows, max_length=7)
    for place, row in enumerate(rows if told else ()):
        context = {"turns": row["context"], "speaker": row["speaker"]}
        own = vae.encode([row["response"]], context=context)
        np.testing.assert_allclose(own[0], vectors[place], atol=1e-5)
        assert vae.decode(own, context=context, max_length=7) == [written[place]]
    drawn = vae.reconstruct([WHOLE], method="sample", seed=3, max_length=7)
    assert drawn == vae.reconstruct([WHOLE], method="sample", seed=3, max_length=7)


@pytest.mark.parametrize("kind", WITH_LATENT)
def test_interpolation_stays_in_its_context(kind: str) -> None:
    vae = dialogue_model(kind)
    ends = TURNS[2], TURNS[4]
    context = WHOLE["turns"][:2]
    path = vae.interpolate(*ends, 5, context=context, max_length=7)
    rows = [{"context": context, "response": text, "speaker": "A"} for text in ends]
    assert [path[0], path[-1]] == vae.reconstruct(rows, max_length=7)
    alone = vae.interpolate(*ends, 5, max_length=7)
    assert alone == vae.interpolate(*ends, 5, context=[], max_length=7)
    assert [alone[0], alone[-1]] == vae.reconstruct(list(ends), max_length=7)


@pytest.mark.parametrize(("kind", "variable"), [("mixture", "z.component"), ("codes", "c")])
def test_responses_are_interpreted_in_their_contexts(
    kind: str, variable: str, tmp_path: Path
) -> None:
    vae = dialogue_model(kind)
    codes = vae.predict([WHOLE])
    assert codes.shape == (len(TURNS), vae.model.variable_sizes()[variable][0])
    probabilities = vae.predict_proba([WHOLE])
    assert np.abs(probabilities[1:] - vae.predict_proba(TURNS)[1:]).max() > 1e-3
    file = tmp_path / "dialogues.jsonl"
    file.write_text(f"{json.dumps(WHOLE)}\n" * 4)
    np.testing.assert_array_equal(np.concatenate([codes] * 4), vae.predict(file))
    found = vae.clusters(file)
    assert found.sentences == 4 * len(TURNS)
    assert sum(cluster.size for cluster in found.clusters) == 4 * len(TURNS)
    assert found.clusters[0].code in set(map(tuple, codes.tolist()))
    vae.name_components({variable: {found.clusters[0].code: "most"}})
    assert vae.clusters(file).clusters[0].name == "most"
    assert vae.diagnose(file) == vae.diagnose([WHOLE] * 4)


def with_topics() -> TextVAE:
    topics = {"column": "topic", "values": 3, "dim": 4}
    vae = dialogue_model("gaussian", condition={"hidden_dim": 10, "features": [topics]})
    vae._classes = {"topic": ["sport", "travel"]}
    return vae


def test_a_topic_is_read_where_it_is_known() -> None:
    vae = with_topics()
    how: dict[str, Any] = {"n": 5, "seed": 0, "max_length": 8}
    found = {
        topic: vae.respond([{"turns": TURNS, "topic": topic}], **how)[0]
        for topic in ("sport", "travel", None)
    }
    assert found["sport"] != found["travel"] != found[None]
    assert found[None] == vae.respond([TURNS], **how)[0]
    np.testing.assert_array_less(
        1e-3, np.abs(vae.encode([WHOLE | {"topic": "sport"}]) - vae.encode([WHOLE])).max(1)
    )
    context = {"turns": TURNS[:1], "topic": "sport"}
    row = {"context": TURNS[:1], "response": TURNS[1], "topic": "sport"}
    assert vae.decode(vae.encode([TURNS[1]], context=context), context=context) == vae.reconstruct(
        [row]
    )
    with pytest.raises(UserError, match=r"dialogue 2: .* 'sprot'; did you mean 'sport'"):
        vae.respond([TURNS, {"turns": TURNS, "topic": "sprot"}])
    with pytest.raises(UserError, match="dialogue 1: label 'topic'"):
        vae.respond([{"turns": TURNS, "topic": ["sport"]}])
