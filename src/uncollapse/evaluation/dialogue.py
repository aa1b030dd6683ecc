"""What a model answers in dialogues, held against what people answered: all figures by name."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from uncollapse.data.corpus import Corpus
from uncollapse.data.tokenizer import Tokenizer
from uncollapse.data.vectors import Vectors, corpus_vectors, read_vectors
from uncollapse.errors import UserError, unknown_name
from uncollapse.evaluation.dialogue_figures import (
    BLEU,
    DIALOGUE,
    DIVERSITY,
    EMBEDDINGS,
    LABELS,
    PPL,
    PPL_DEFINITION,
    dashes,
)
from uncollapse.evaluation.likelihood import ELBO_SAMPLES, score_sentences
from uncollapse.evaluation.likelihood_figures import perplexity
from uncollapse.evaluation.metric import Metric
from uncollapse.evaluation.passes import Progress, check_seed
from uncollapse.evaluation.remembered import fingerprint, once
from uncollapse.evaluation.response_labels import label_figures
from uncollapse.evaluation.responses.bleu import (
    response_bleu,
    response_bleu_sacre,
    response_bleu_wae,
)
from uncollapse.evaluation.responses.diversity import frequent_responses, response_diversity
from uncollapse.evaluation.responses.embeddings import response_embeddings, response_embeddings_wae
from uncollapse.evaluation.responses.sets import ResponseSets, Words
from uncollapse.evaluation.written_responses import (
    LONGEST,
    SAMPLES,
    AnsweredContexts,
    WrittenResponses,
    write_responses,
)
from uncollapse.model import Model

NO_CONTEXT = "the model is told of no context"


def dialogue_probes(
    model: Model,
    tokenizer: Tokenizer,
    train: Corpus,
    test: Corpus,
    *,
    metrics: Sequence[str] | None = None,
    generated: int = 10_000,
    vectors: str | Path | None = None,
    seed: int = 0,
    batch_size: int = 32,
    progress: Progress | None = None,
) -> dict[str, Metric]:
    """Let a model respond, ten times to each context, and hold that against real responses.

    z is drawn from p(z|context) and the words are the most probable ones, as in the papers; a
    model without a latent draws its words. All is compared as tokens of the tokeniser, in which
    references keep the unknown word and the cut of the corpus. Responses of the test data to the
    same context are references of each other; first turns, which have none, are left out.

    Parameters
    ----------
    model : Model
        One that is told of no context has dashes.
    tokenizer : Tokenizer
        The model's.
    train, test : Corpus
        Dialogues encoded with ``tokenizer``; what the model was trained on, and what it has not
        seen. With labels in the first column for the figures that need them.
    metrics : sequence of str, optional
        Only these of `DIALOGUE`; each has the value that it has among all.
    generated : int
        Responses to write: a tenth as many contexts, spread evenly over the test data.
    vectors : path, optional
        A file of word vectors, see `read_vectors`; without it they are trained on ``train``.
    seed : int
        Of z, of words that are drawn, and of the classifier.
    batch_size : int
        Contexts that are answered together.
    progress : callable, optional
        Told what is computed, how much of it is done, and how much there is.

    Returns
    -------
    dict of str to Metric
        In the order of `DIALOGUE`. Where all are asked for, those that the data cannot give are
        dashes that say why.

    Raises
    ------
    UserError
        For an unknown metric, a negative seed, vectors that cannot be read, test data without
        contexts, or labels that a figure asked for by name lacks.

    References
    ----------
    Zhao et al. 2017, "Learning Discourse-level Diversity for Neural Dialog Models using
    Conditional Variational Autoencoders"; Gu et al. 2019, "DialogWAE".
    """
    for name in metrics or ():
        if name not in DIALOGUE:
            raise unknown_name("metric", name, DIALOGUE)
    check_seed(seed)
    wanted = [name for name in DIALOGUE if metrics is None or name in metrics]
    if model.context is None:
        return dashes(wanted, NO_CONTEXT)
    contexts = AnsweredContexts.of(test, max(1, generated // SAMPLES))
    probe = _Probe(model, tokenizer, train, test, contexts, vectors, seed, batch_size, progress)
    if vectors is not None and set(EMBEDDINGS) & set(wanted):
        probe.read_vectors()  # if they are faulty, before anything is written
    result: dict[str, Metric] = {}
    for names, family in probe.families:
        if set(names) & set(wanted):
            try:
                result |= family()
            except _MissingError as error:
                if metrics is not None:
                    raise UserError(str(error)) from None
                result |= dashes(names, str(error))
    return {name: result[name] for name in wanted}


class _MissingError(Exception):
    """The data lacks what some figures need; the message says what."""


@dataclass(frozen=True)
class _Probe:
    """All that figures are made of; what is written is written once, when it is needed."""

    model: Model
    tokenizer: Tokenizer
    train: Corpus
    test: Corpus
    contexts: AnsweredContexts
    vectors: str | Path | None
    seed: int
    batch_size: int
    progress: Progress | None

    @property
    def families(self) -> list[tuple[Collection[str], Callable[[], dict[str, Metric]]]]:
        """Figures that are computed together, and how."""
        wae = [name for name in BLEU if name.endswith("_wae")]
        plain = [name for name in BLEU if name[5].isdigit()]
        return [
            (plain, lambda: self._told(response_bleu(self.sets))),
            (wae, lambda: self._told(response_bleu_wae(self.sets))),
            (["bleu_sacre"], lambda: self._told(response_bleu_sacre(self.sets))),
            (EMBEDDINGS, self._embeddings),
            (DIVERSITY, lambda: self._told(response_diversity(self.sets, self._frequent()))),
            ([PPL], self._perplexity),
            (LABELS, self._labels),
        ]

    @cached_property
    def written(self) -> WrittenResponses:
        """What the model answers."""
        return write_responses(
            self.model,
            self.test,
            self.contexts.rows,
            max_length=min(LONGEST, self.train.longest),
            seed=self.seed,
            batch_size=self.batch_size,
            progress=self.progress,
        )

    @cached_property
    def sets(self) -> ResponseSets:
        """The same and the references, as words."""
        references = [self._words_at(self.test, rows) for rows in self.contexts.references]
        return ResponseSets([self._words(group) for group in self.written.tokens], references)

    def _words(self, sentences: Iterable[Iterable[int]]) -> list[Words]:
        return [[self.tokenizer.tokens[token] for token in ids] for ids in sentences]

    def _words_at(self, corpus: Corpus, rows: Iterable[int]) -> list[Words]:
        return self._words(corpus.sentence(int(row)).tolist() for row in rows)

    def _told(self, found: dict[str, Metric]) -> dict[str, Metric]:
        """Figures whose estimators say what was written."""
        note = f"{self.contexts.describe()}; {self.written.origin}"
        return {
            name: metric
            if metric.value is None
            else replace(metric, estimator=f"{metric.estimator}; {note}")
            for name, metric in found.items()
        }

    def _frequent(self) -> list[Words]:
        key = fingerprint(self.train, self.tokenizer)
        every = range(len(self.train))
        return once("frequent", key, lambda: frequent_responses(self._words_at(self.train, every)))

    def _embeddings(self) -> dict[str, Metric]:
        vectors = self.read_vectors()
        found = response_embeddings(self.sets, vectors)
        return self._told(found | response_embeddings_wae(self.sets, vectors))

    def read_vectors(self) -> Vectors:
        """Those of the file, or trained on the training responses; once for several models."""
        if self.vectors is not None:
            path = Path(self.vectors)
            state = path.stat() if path.is_file() else None
            read = (str(path.absolute()), state and (state.st_size, state.st_mtime_ns))
            key = (read, self.tokenizer.fingerprint)
            return once("vectors", key, lambda: read_vectors(path, self.tokenizer.tokens))
        key = fingerprint(self.train, self.tokenizer)
        every = range(len(self.train))
        try:
            found = once("vectors", key, lambda: corpus_vectors(self._words_at(self.train, every)))
        except UserError as error:
            raise _MissingError(str(error)) from None
        return replace(found, source=f"training responses: {found.source}")

    def _perplexity(self) -> dict[str, Metric]:
        rows = self.contexts.answers
        scores = score_sentences(
            self.model,
            self.test.select(rows),
            samples=ELBO_SAMPLES,
            seed=self.seed,
            batch_size=self.batch_size,
            progress=self.progress,
        )
        samples = scores.reconstruction_samples
        how = f"{samples} posterior samples a response" if samples else "exact, nothing is drawn"
        found = perplexity(
            -scores.reconstruction,
            scores.tokens,
            f"{how}; responses to {self.contexts.describe()}",
            PPL_DEFINITION,
            samples,
        )
        return {PPL: found}

    def _labels(self) -> dict[str, Metric]:
        try:
            found = label_figures(
                self.model,
                self.tokenizer,
                self.train,
                self.test,
                self.contexts,
                self.written,
                self.sets,
                seed=self.seed,
                progress=self.progress,
            )
        except UserError as error:
            raise _MissingError(str(error)) from None
        return self._told(found)
