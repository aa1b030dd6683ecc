"""A corpus whose truth is known: an unambiguous probabilistic grammar of assistant commands.

Every sentence has exactly one derivation, so its probability is a product of rule probabilities,
its intent is a fact, and the entropy of the language is a number: no valid bound on the negative
log-likelihood can fall below it. All probabilities and entropies are natural (nats per sentence).
"""

from __future__ import annotations

import json
import math
import os
import re
from bisect import bisect
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import cache, cached_property
from importlib.resources import files
from itertools import accumulate, islice
from pathlib import Path
from random import Random

from uncollapse.errors import RunError, UserError, unknown_name

_Ends = dict[int, tuple[float, int]]  # end of a span -> its inside probability, its derivations


@dataclass(frozen=True)
class Sample:
    """One sentence with its truth: intent and exact log-probability in nats."""

    text: str
    label: str
    log_prob: float


@dataclass(frozen=True)
class Production:
    """One expansion of a symbol; items are words, or symbols written ``<name>``."""

    probability: float
    items: tuple[str, ...]


class Grammar:
    """An acyclic probabilistic context-free grammar over whitespace-separated words.

    Parameters
    ----------
    source : str
        One rule per line, ``symbol = 3 words and <symbols> | 2 another expansion``. An expansion
        weighs its leading number (1 without one), ``-`` is empty, an indented line continues the
        rule above, ``#`` starts a comment line. The first rule is the start symbol, and each of its
        expansions is one symbol: an intent.

    Attributes
    ----------
    rules : dict of str to tuple of Production
        By symbol, in the order of the source; the start symbol first.
    intents : list of str
        In the order of the start rule.
    vocabulary : list of str
        Sorted words.

    Raises
    ------
    UserError
        If a rule is malformed or repeated, a symbol has no rule, or a symbol derives itself.

    Notes
    -----
    Entropies are those of derivations: of sentences, too, where `derivations` is 1 for each.
    """

    def __init__(self, source: str) -> None:
        self.rules = _read_rules(source)
        if not self.rules:
            raise UserError("the grammar has no rules")
        self._start = next(iter(self.rules))
        for production in self.rules[self._start]:
            if len(production.items) != 1 or production.items[0] not in self.rules:
                raise UserError(f"each expansion of {self._start} must be one symbol, an intent")
        self.intents = [p.items[0][1:-1] for p in self.rules[self._start]]
        items = {item for ps in self.rules.values() for p in ps for item in p.items}
        self.vocabulary = sorted(items - self.rules.keys())
        self._order = _children_first(self.rules, self._start)

    def entropy(self) -> float:
        """Exact entropy of a sentence: H(rule choice) + Σ p(rule) Σ H(its symbols)."""
        return self._expected(lambda production: -math.log(production.probability))

    def intent_entropy(self) -> float:
        """Exact entropy of the intent."""
        return -sum(p.probability * math.log(p.probability) for p in self.rules[self._start])

    def conditional_entropy(self) -> float:
        """Exact entropy of a sentence given its intent, which the sentence determines."""
        return self.entropy() - self.intent_entropy()

    def mean_length(self) -> float:
        """Exact expected number of words in a sentence."""
        return self._expected(lambda p: sum(item not in self.rules for item in p.items))

    def sample(self, n: int, seed: int) -> list[Sample]:
        """Draw `n` sentences; fewer with the same seed are a prefix of more.

        Raises
        ------
        UserError
            If `n` or the seed is negative.
        """
        if n < 0:
            raise UserError(f"cannot draw {n} sentences")
        return list(islice(self._stream(seed), n))

    def log_prob(self, text: str) -> float:
        """Log-probability of a sentence (inside algorithm); -inf outside the language."""
        probability = sum(inside for inside, _ in self._parses(text).values())
        return math.log(probability) if probability > 0 else -math.inf

    def derivations(self, text: str) -> int:
        """Count the derivations of a sentence: 0 outside the language, 1 if it is unambiguous."""
        return sum(count for _, count in self._parses(text).values())

    def intent(self, text: str) -> str | None:
        """Name the intent of a sentence (the most probable, were it ambiguous), or None."""
        parses = self._parses(text)
        return max(parses, key=lambda intent: parses[intent]) if parses else None

    def _stream(self, seed: int) -> Iterator[Sample]:
        """Draw independent sentences without end."""
        if seed < 0:
            raise UserError(f"seed must not be negative, got {seed}")
        random = Random(seed).random
        cumulative, intents = self._choices[self._start]
        while True:
            log_prob, (intent,) = intents[bisect(cumulative, random())]
            words: list[str] = []
            stack = [intent]
            while stack:
                item = stack.pop()
                choice = self._choices.get(item)
                if choice is None:
                    words.append(item)
                else:
                    step, items = choice[1][bisect(choice[0], random())]
                    log_prob += step
                    stack += items
            yield Sample(" ".join(words), intent[1:-1], log_prob)

    def _expected(self, cost: Callable[[Production], float]) -> float:
        """Expected sum of a cost over the productions of a derivation."""
        total: dict[str, float] = {}
        for symbol in self._order:
            total[symbol] = sum(
                p.probability * (cost(p) + sum(total.get(item, 0.0) for item in p.items))
                for p in self.rules[symbol]
            )
        return total[self._start]

    def _parses(self, text: str) -> dict[str, tuple[float, int]]:
        """By intent, its joint probability with the sentence and the number of derivations."""
        words = text.split()
        chart: dict[tuple[str, int], _Ends] = {}

        def ends(item: str, start: int) -> _Ends:
            if item not in self.rules:
                return {start + 1: (1.0, 1)} if words[start : start + 1] == [item] else {}
            found = chart.get((item, start))
            if found is None:
                found = chart[item, start] = {}
                for production in self.rules[item]:
                    reached: _Ends = {start: (production.probability, 1)}
                    for child in production.items:
                        following: _Ends = {}
                        for middle, at in reached.items():
                            _add(following, at, ends(child, middle))
                        if not (reached := following):
                            break
                    _add(found, (1.0, 1), reached)
            return found

        parses = {}
        for production in self.rules[self._start]:
            inside, count = ends(production.items[0], 0).get(len(words), (0.0, 0))
            if count:
                parses[production.items[0][1:-1]] = (production.probability * inside, count)
        return parses

    @cached_property
    def _choices(self) -> dict[str, tuple[list[float], list[tuple[float, list[str]]]]]:
        """By symbol, cumulative probabilities and (log-probability, items to push on a stack)."""
        choices = {}
        for symbol, productions in self.rules.items():
            # The last bound is left out: rounding may put it below 1, and bisect out of range.
            cumulative = list(accumulate(p.probability for p in productions[:-1]))
            options = [(math.log(p.probability), list(p.items[::-1])) for p in productions]
            choices[symbol] = (cumulative, options)
        return choices


@cache
def assistant_grammar() -> Grammar:
    """Return the embedded grammar of in-car and home assistant commands."""
    return Grammar((files("uncollapse.data") / "assistant.grammar").read_text(encoding="utf-8"))


def write_grammar(path: str | Path, n: int, seed: int) -> None:
    """Write `n` sentences of the embedded grammar to a new file, all or nothing.

    ``.jsonl`` and ``.csv`` hold ``text``, ``label`` and ``log_prob`` (nats), ``.txt`` one sentence
    a line. Fewer sentences with the same seed are the first lines of more.

    Raises
    ------
    UserError
        If the file exists, its folder does not, its suffix is unknown, or `n` or `seed` is bad.
    RunError
        If writing fails, e.g. on a full disk; nothing is left behind.
    """
    path = Path(path)
    line = _LINES.get(path.suffix)
    if line is None:
        raise UserError(f"{path}: unknown suffix {path.suffix!r}; known: {', '.join(_LINES)}")
    if n < 1:
        raise UserError(f"cannot write {n} sentences; at least 1 is needed")
    if path.exists():
        raise UserError(f"{path} exists and is not overwritten")
    if not path.parent.is_dir():
        raise UserError(f"{path}: no folder {path.parent}")
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with partial.open("w", encoding="utf-8", newline="\n") as file:
            file.write("text,label,log_prob\n" if path.suffix == ".csv" else "")
            file.writelines(f"{line(s)}\n" for s in islice(assistant_grammar()._stream(seed), n))
        partial.rename(path)
    except OSError as error:
        raise RunError(f"{path}: cannot write: {error.strerror or error}") from error
    finally:
        partial.unlink(missing_ok=True)


_LINES: dict[str, Callable[[Sample], str]] = {
    ".jsonl": lambda sample: json.dumps(asdict(sample)),
    # No word of the grammar holds a comma or a quote.
    ".csv": lambda sample: f"{sample.text},{sample.label},{sample.log_prob!r}",
    ".txt": lambda sample: sample.text,
}


def _add(total: _Ends, before: tuple[float, int], after: _Ends) -> None:
    """Add to a span's ends those of one way to reach them: probabilities and counts multiply."""
    for end, (inside, count) in after.items():
        p, c = total.get(end, (0.0, 0))
        total[end] = (p + before[0] * inside, c + before[1] * count)


def _read_rules(source: str) -> dict[str, tuple[Production, ...]]:
    source = re.sub(r"^\s*#.*$", "", source, flags=re.MULTILINE)
    rules: dict[str, tuple[Production, ...]] = {}
    for line in filter(str.strip, re.sub(r"\n[ \t]+(?=\S)", " ", source).split("\n")):
        name, equals, body = (part.strip() for part in line.partition(" = "))
        symbol = f"<{name}>"
        if not equals or not name.isidentifier() or symbol in rules:
            raise UserError(f"malformed or repeated grammar rule: {line!r}")
        rules[symbol] = _read_productions(symbol, body)
    return rules


def _read_productions(symbol: str, body: str) -> tuple[Production, ...]:
    weights: dict[tuple[str, ...], int] = {}
    for expansion in body.split("|"):
        items = expansion.split()
        weight = int(items.pop(0)) if items and items[0].isdecimal() else 1
        # Two equal expansions would be two derivations of the same words.
        if not items or weight < 1 or tuple(items) in weights:
            raise UserError(f"{symbol}: empty, weightless or repeated expansion {expansion!r}")
        weights[tuple(items)] = weight
    total = sum(weights.values())
    return tuple(Production(w / total, () if i == ("-",) else i) for i, w in weights.items())


def _children_first(rules: dict[str, tuple[Production, ...]], start: str) -> list[str]:
    """Order the symbols so that each comes after all that it can expand to."""
    order: list[str] = []

    def visit(symbol: str, ancestors: frozenset[str]) -> None:
        if symbol in ancestors:
            raise UserError(f"{symbol} derives itself; the language would not be finite")
        for item in (item for production in rules[symbol] for item in production.items):
            if item.startswith("<") and item not in rules:
                raise unknown_name("grammar symbol", item, rules)
            if item in rules and item not in order:
                visit(item, ancestors | {symbol})
        order.append(symbol)

    visit(start, frozenset())
    if len(order) < len(rules):
        raise UserError(f"no sentence uses {next(s for s in rules if s not in order)}")
    return order
