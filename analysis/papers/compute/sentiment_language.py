"""LSTM classifiers of the sentiment of a language made up here: words of praise and of blame, reversed by a 'not' before them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from ..engine.figure import job

# What a word counts. 'ha' is praise of half a word's weight.
WORDS = {
    **dict.fromkeys(("good", "great", "lovely", "brilliant", "moving"), 1.0),
    **dict.fromkeys(("bad", "awful", "dull", "poor", "boring"), -1.0),
    "ha": 0.5,
    **dict.fromkeys(("not", "never"), 0.0),
    **dict.fromkeys(("the", "a", "film", "actor", "story", "it", "is", "was", "so", "and"), 0.0),
}
NEGATIONS = ("not", "never")
# A negation reverses the next word that counts, if that is at most so many words away.
REACH = 4
# Parts of a sentence that are words that count, and negations.
_POLAR, _NEGATING = 0.3, 0.15
LENGTHS = (4, 32)
# Layers, and whether the sentence is also read backwards.
KINDS = {"bidirectional": (1, True), "stacked": (2, False)}
_EMBEDDING, _HIDDEN = 16, 32
_LEARNING_RATE, _BATCH = 5e-3, 128
# Of each of so many lengths, for testing.
_TEST_LENGTHS, _TEST_SENTENCES = (4, 8, 16, 32), 1000
_MOST = 0.99

_INDEX = {word: index for index, word in enumerate(WORDS)}
_WEIGHTS = np.array(list(WORDS.values()))
_IS_NEGATION = np.isin(list(WORDS), NEGATIONS)


def sentences(count: int, length: int, generator: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Random sentences, and whether their writers meant praise: with probability 1 / (1 + exp(-balance)).

    So the best score there is of a sentence is known, and it is never sure.

    Returns:
        Words (count, length), as indices into `WORDS`; labels (count,), 1.0 for praise, else 0.0.
    """
    probabilities = np.where(_WEIGHTS != 0, _POLAR / (_WEIGHTS != 0).sum(), 0.0)
    probabilities[_IS_NEGATION] = _NEGATING / _IS_NEGATION.sum()
    others = probabilities == 0
    probabilities[others] = (1 - _POLAR - _NEGATING) / others.sum()
    words = generator.choice(len(WORDS), (count, length), p=probabilities)
    praised = generator.random(count) < 1 / (1 + np.exp(-balance(words)))
    return torch.from_numpy(words), torch.from_numpy(praised).float()


def balance(words: NDArray[np.int64]) -> NDArray[np.float64]:
    """What the words (count, length) count together, (count,), each with its sign reversed where a negation reaches it."""
    total = np.zeros(len(words))
    reach = np.zeros(len(words), np.int64)
    for word in words.T:
        weight = _WEIGHTS[word]
        total += np.where(reach > 0, -weight, weight)
        reach = np.where(_IS_NEGATION[word], REACH, np.where(weight != 0, 0, np.maximum(reach - 1, 0)))
    return total


class Classifier(nn.Module):
    """The log-odds that a sentence praises, from the last states of an LSTM's top layer, of both directions if it has two."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        layers, both = KINDS[kind]
        self.embedding = nn.Embedding(len(WORDS), _EMBEDDING)
        self.lstm = nn.LSTM(_EMBEDDING, _HIDDEN, layers, batch_first=True, bidirectional=both)
        self.directions = 1 + both
        self.readout = nn.Linear(self.directions * _HIDDEN, 1)

    def forward(self, words: Tensor) -> Tensor:
        """Log-odds (count,) of words (count, length); the empty sentence leaves the states at 0."""
        if words.shape[1] == 0:
            return self.readout.bias.expand(len(words))
        _, (h, _) = self.lstm(self.embedding(words))
        last: Tensor = h[-self.directions :].transpose(0, 1).flatten(1)
        return self.readout(last)[:, 0]  # type: ignore[no-any-return, unused-ignore]


@job("sentiment-of-own-lstm")
def train_and_repeat(kind: str, words: list[str], longest: int, steps: int, seed: int) -> dict[str, Any]:
    """Trains a classifier on sentences that are made as it goes, and asks it one word repeated n times, n = 0, 1, ....

    Args:
        kind: of `KINDS`.
        words: to repeat, of `WORDS`.
        longest: largest n.
        steps: of Adam, each on a batch of one length, drawn from `LENGTHS`.
        seed: of initial weights and sentences.

    Returns:
        "logits", by word (n + 1,): the log-odds of praise, in float64. On sentences of its own: "accuracy"; "accuracy_shuffled",
        on the same with their words in another order; "accuracy_of_counts", of the words' weights alone, without negations;
        "accuracy_of_balance", the best there is. "largest_balance": what 99 % of the longest sentences stay below in size.

    Source: the query is that of [IA] Fig 5 and 6.
    """
    generator = np.random.default_rng(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Classifier(kind)
    optimizer = torch.optim.Adam(model.parameters(), _LEARNING_RATE)
    for _ in range(steps):
        x, labels = sentences(_BATCH, int(generator.integers(LENGTHS[0], LENGTHS[1] + 1)), generator)
        loss = binary_cross_entropy_with_logits(model(x), labels)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    with torch.no_grad():
        model.double()
        result = _test(model, np.random.default_rng([seed, 1]))
        repeated = {word: [torch.full((1, n), _INDEX[word]) for n in range(longest + 1)] for word in words}
        logits = {word: torch.cat([model(x) for x in texts]) for word, texts in repeated.items()}
    return {"logits": {word: values.tolist() for word, values in logits.items()}, **result}


def _test(model: Classifier, generator: np.random.Generator) -> dict[str, float]:
    hits: dict[str, list[float]] = {}
    for length in _TEST_LENGTHS:
        words, labels = sentences(_TEST_SENTENCES, length, generator)
        x = words.numpy()
        guesses = {
            "accuracy": model(words).numpy(),
            "accuracy_shuffled": model(torch.from_numpy(generator.permuted(x, axis=1))).numpy(),
            "accuracy_of_counts": _WEIGHTS[x].sum(1),
            "accuracy_of_balance": balance(x),
        }
        for name, values in guesses.items():
            # Where nothing speaks for either, half of them are right.
            right = np.where(values == 0, 0.5, (values > 0) == (labels.numpy() > 0))
            hits.setdefault(name, []).append(float(right.mean()))
    # x and the lengths end with the longest.
    largest = float(np.quantile(np.abs(balance(x)), _MOST))
    return {**{name: float(np.mean(values)) for name, values in hits.items()}, "largest_balance": largest}
