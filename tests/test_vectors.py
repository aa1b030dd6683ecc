"""Word vectors from files, with all that can be wrong with these, and from a corpus."""

from __future__ import annotations

import gzip
import random
import time
from pathlib import Path

import numpy as np
import pytest

from uncollapse.data.vectors import corpus_vectors, read_vectors
from uncollapse.errors import UserError

GLOVE = "the 1 2 3\ncat -0.5 1e-2 0\nthe 9 9 9\n"


@pytest.fixture
def write(tmp_path: Path):
    def writing(text: str | bytes, name: str = "vectors.txt") -> Path:
        path = tmp_path / name
        data = text.encode() if isinstance(text, str) else text
        path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        return path

    return writing


class TestReading:
    @pytest.mark.parametrize("name", ["vectors.txt", "vectors.txt.gz"])
    @pytest.mark.parametrize(
        "text",
        [
            GLOVE,
            "2 3\n" + GLOVE,  # word2vec's first line
            GLOVE.replace("\n", " \n"),  # and its blank at the end of a line
            GLOVE.replace("\n", "\r\n"),
            GLOVE.rstrip(),
            GLOVE + "\n\n",
        ],
    )
    def test_formats(self, write, text: str, name: str) -> None:
        vectors = read_vectors(write(text, name), None, 3)
        assert vectors.words == {"the": 0, "cat": 1}
        expected = np.array([[1, 2, 3], [-0.5, 0.01, 0]], np.float32)
        np.testing.assert_array_equal(vectors.matrix, expected)
        assert vectors.matrix.dtype == np.float32
        assert vectors.source == name

    def test_wanted_words_only(self, write) -> None:
        vectors = read_vectors(write("a 1 2\nb x y\nc 3 4\n"), {"c", "unheard-of"})
        assert vectors.words == {"c": 0}  # b is not even looked at
        np.testing.assert_array_equal(vectors.matrix, [[3, 4]])

    def test_falls_back_to_lower_case(self, write) -> None:
        path = write("paris 1 0\nParis 2 0\nrome 3 0\noslo 4 0\n")
        vectors = read_vectors(path, ["Paris", "Rome", "ROME", "Oslo", "oslo"])
        found = {word: float(vectors.matrix[row, 0]) for word, row in vectors.words.items()}
        assert found == {"Paris": 2, "Rome": 3, "ROME": 3, "Oslo": 4, "oslo": 4}
        assert len(vectors.matrix) == 3  # paris was of no use

    def test_nothing_wanted_is_there(self, write) -> None:
        vectors = read_vectors(write(GLOVE), {"dog"}, 3)
        assert vectors.words == {}
        assert vectors.matrix.shape == (0, 3)

    def test_odd_words(self, write) -> None:
        # a "word" of several, one with a line separator of Unicode, one that is a number
        text = "a 1 2\n. . . 3 4\nnew\u0085line 5 6\n7 7 7\nno\u00a0break 8 8\n"
        vectors = read_vectors(write(text))
        assert list(vectors.words) == ["a", "new\u0085line", "7", "no\u00a0break"]

    def test_words_that_are_no_utf8(self, write) -> None:
        path = write(b"a 1 2\n\xff\xfe 3 4\nb 5 6\n")
        assert read_vectors(path, {"a", "b"}).words == {"a": 0, "b": 1}

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("", "{} is empty; expected a word and its numbers a line"),
            ("\n\n", "{} is empty; expected a word and its numbers a line"),
            ("a 1 2\nb 1\n", "{}, line 2: 1 numbers, expected 2"),
            ("a 1 2\nb 1 2 3\n", "{}, line 2: 3 numbers, expected 2"),
            ("2 3\na 1 2\n", "{}, line 2: 2 numbers, expected 3"),
            ("a 1 2\nb 1 two\n", "{}, line 2: 'two' is not a number"),
            ("a 1 nan\n", "{}, line 1: 'nan' is not a number"),
            ("a\n", "{}, line 1: a word without numbers"),
        ],
    )
    def test_faults_name_file_and_line(self, write, text: str, message: str) -> None:
        path = write(text)
        with pytest.raises(UserError) as caught:
            read_vectors(path)
        assert str(caught.value) == message.format(path)

    @pytest.mark.parametrize("text", ["a 1 2\n", "1 2\na 1 2\n"])
    def test_width_must_be_that_of_the_embedding(self, write, text: str) -> None:
        path = write(text)
        with pytest.raises(UserError) as caught:
            read_vectors(path, {"a"}, 200)
        assert str(caught.value) == (f"vectors of {path} have 2 numbers, but the embedding has 200")

    def test_unreadable_files(self, write, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r"cannot read the vectors .*none\.txt: No such file"):
            read_vectors(tmp_path / "none.txt")
        with pytest.raises(UserError, match=r"cannot read the vectors .*: Is a directory"):
            read_vectors(tmp_path)
        plain = write(GLOVE).rename(tmp_path / "plain.gz")
        with pytest.raises(UserError, match=r"plain\.gz is damaged or no gzip file"):
            read_vectors(plain)
        whole = gzip.compress(GLOVE.encode() * 100)
        (tmp_path / "cut.gz").write_bytes(whole[:-20])
        with pytest.raises(UserError, match=r"cut\.gz is damaged or no gzip file"):
            read_vectors(tmp_path / "cut.gz")


class TestTraining:
    def test_words_of_one_kind_are_close(self) -> None:
        draw = random.Random(0)
        animals, colours = ["cat", "dog", "cow"], ["red", "blue", "green"]
        sentences = [["feed", "the", draw.choice(animals), "hay"] for _ in range(200)]
        sentences += [["paint", "it", draw.choice(colours), "now"] for _ in range(200)]
        vectors = corpus_vectors(sentences, dim=5)
        unit = vectors.matrix / np.linalg.norm(vectors.matrix, axis=1, keepdims=True)

        def cosine(one: str, other: str) -> float:
            return float(unit[vectors.words[one]] @ unit[vectors.words[other]])

        assert cosine("cat", "dog") > 0.9
        assert cosine("red", "blue") > 0.9
        assert cosine("cat", "red") < 0.3
        assert "trained on the corpus (PPMI, SVD)" in vectors.source
        assert vectors.matrix.dtype == np.float32

    def test_by_hand(self) -> None:
        # "a b" and "c d": each word once, p(a, b) = 1/4 and p(a) = p_α(b) = 1/4, so the PMI
        # of a pair is ln 4, and the matrix times its transpose is (ln 4)² I. Hence every
        # vector has the length √ln 4, and all are orthogonal.
        vectors = corpus_vectors([["a", "b"], ["c", "d"]])
        assert vectors.matrix.shape == (4, 4)  # no more dimensions than words
        gram = vectors.matrix @ vectors.matrix.T
        np.testing.assert_allclose(gram, np.log(4) * np.eye(4), atol=1e-5)

    def test_contexts_are_smoothed(self) -> None:
        # a stands with b once and with c twice, so 3, 1 and 2 of 6 words; contexts weigh
        # 3^¾, 1 and 2^¾, together s. The rows of b and c are equal: m in the column of a.
        vectors = corpus_vectors([["a", "b"], ["a", "c"], ["a", "c"]])
        s = 3**0.75 + 1 + 2**0.75
        m = np.log(s / 3**0.75)
        of_a = np.hypot(np.log(s / 3), np.log(2 * s / (3 * 2**0.75)))
        # products of vectors are the root of the matrix times its transpose
        root = m / np.sqrt(2)
        expected = [[of_a, 0, 0], [0, root, root], [0, root, root]]
        matrix = vectors.matrix[[vectors.words[word] for word in "abc"]]
        np.testing.assert_allclose(matrix @ matrix.T, expected, atol=1e-5)

    def test_company_ends_with_the_window_and_the_sentence(self) -> None:
        # within one word to the left and right a never meets c
        near = corpus_vectors([["a", "b", "c"], ["c", "d"]], window=1)
        wide = corpus_vectors([["a", "b", "c"], ["c", "d"]], window=2)
        products = [float(v.matrix[v.words["a"]] @ v.matrix[v.words["b"]]) for v in (near, wide)]
        # near, a stands with b alone and b with a and c: their rows have nothing in common
        assert products[0] == pytest.approx(0, abs=1e-6)
        assert products[1] > 0.01  # wide, both stand with c
        assert "window 1" in near.source
        # "lone" has no company: no vector
        vectors = corpus_vectors([["lone"], ["a", "b"], [], ["c", "d"]])
        assert set(vectors.words) == {"a", "b", "c", "d"}

    def test_is_reproducible(self) -> None:
        draw = random.Random(1)
        sentences = [draw.choices("abcdefghij", k=6) for _ in range(100)]
        first, second = (corpus_vectors(sentences, dim=4, seed=3) for _ in range(2))
        np.testing.assert_array_equal(first.matrix, second.matrix)
        assert first.words == second.words

    @pytest.mark.parametrize("sentences", [[], [[]], [["a"], ["b"]], [["a", "a"]]])
    def test_nothing_to_learn(self, sentences: list[list[str]]) -> None:
        with pytest.raises(UserError, match="no vectors can be trained"):
            corpus_vectors(sentences)

    def test_settings(self) -> None:
        with pytest.raises(UserError, match="dim must be at least 1, not 0"):
            corpus_vectors([["a", "b"]], dim=0)
        with pytest.raises(UserError, match="window must be at least 1, not -1"):
            corpus_vectors([["a", "b"]], window=-1)

    def test_50_000_sentences_take_seconds(self) -> None:
        random_numbers = np.random.default_rng(0)
        flat = random_numbers.zipf(1.3, 600_000) % 10_000
        sentences = [[str(word) for word in row] for row in flat.reshape(50_000, 12)]
        start = time.process_time()
        vectors = corpus_vectors(sentences)
        assert time.process_time() - start < 20
        assert vectors.matrix.shape[1] == 100
