"""The memory of sentiment classifiers: local ones, and our own of a language made up for them."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from analysis.papers.compute import sentiment, sentiment_language
from analysis.papers.engine.figure import Options
from analysis.papers.inverse_approximation.fig_5 import IA_5, memory

# --- local classifiers ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def classifier(tmp_path):
    """DATA with a tiny BERT classifier of random weights, whose tokenizer knows five words."""
    transformers = pytest.importorskip("transformers")
    folder = tmp_path / "data" / "sentiment"
    folder.mkdir(parents=True)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "ha", "good", "bad", "movie", "a"]
    vocabulary = tmp_path / "vocab.txt"
    vocabulary.write_text("\n".join(words) + "\n")
    transformers.BertTokenizer(str(vocabulary)).save_pretrained(folder)
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(words),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=12,
        id2label={0: "POSITIVE", 1: "NEGATIVE"},
        label2id={"POSITIVE": 0, "NEGATIVE": 1},
    )
    transformers.BertForSequenceClassification(config).save_pretrained(folder)
    return tmp_path / "data"


def test_scores_of_repeated_words_are_the_classifiers_own(classifier):
    (local,) = sentiment.find(classifier)
    assert local.source["name"] == "sentiment"
    assert str(classifier) not in str(local.source)
    asked = sentiment.repetition_scores(local.source, "good", 100, **local.places)
    assert asked["label"] == "POSITIVE"
    # 12 positions, of which [CLS] and [SEP] take two
    assert len(asked["scores"]) == 11
    model, tokenizer = sentiment.load(classifier / "sentiment")
    with torch.no_grad():
        expected = model(**tokenizer("good good good", return_tensors="pt")).logits.softmax(-1)[0, 0]
    assert asked["scores"][3] == pytest.approx(float(expected), rel=1e-6)
    assert memory(asked["scores"])[2] == abs(asked["scores"][3] - asked["scores"][2])


def test_a_local_classifier_is_known_by_its_files_and_found_by_its_folder(tmp_path, monkeypatch):
    for name in ("one", "two"):
        (tmp_path / "sentiment" / name).mkdir(parents=True)
        (tmp_path / "sentiment" / name / "config.json").write_text(name)
    asked = []

    class Scores:
        config = SimpleNamespace(id2label={0: "POSITIVE", 1: "NEGATIVE"}, max_position_embeddings=100)

        def __call__(self, input_ids):
            return SimpleNamespace(logits=torch.tensor([[1.0 - 0.5 ** input_ids.shape[1], 0.0]]))

    class Tokenizer:
        model_max_length = 100

        def __call__(self, text, return_tensors):
            return {"input_ids": torch.zeros(1, len(text.split()))}

    monkeypatch.setattr(sentiment, "load", lambda folder: asked.append(folder) or (Scores(), Tokenizer()))
    jobs = [job for job in IA_5.jobs(Options(data=tmp_path)) if job.compute is sentiment.repetition_scores]
    assert str(tmp_path) not in str([job.settings for job in jobs])
    data = IA_5.assemble([(job, job.run()) for job in jobs])
    assert [model["name"] for model in data["models"]] == ["one", "two"]
    assert set(asked) == {tmp_path / "sentiment" / "one", tmp_path / "sentiment" / "two"}
    assert [claim.outcome for claim in IA_5.claims(data)] == ["held", "held"]


def test_the_figure_of_a_local_classifier_is_drawn(classifier, tmp_path):
    jobs = IA_5.jobs(Options(quick=True, data=classifier))
    data = IA_5.assemble([(job, job.run()) for job in jobs if job.compute is sentiment.repetition_scores])
    IA_5.plot(data, tmp_path / "ia-5.png")
    assert (tmp_path / "ia-5.png").exists()
    assert [claim.outcome for claim in IA_5.claims(data)] in (["held"], ["differs"])
    assert len(IA_5.rows(data)) == 3 * 11
    assert "local folders: sentiment" in IA_5.settings(data)


# --- the language of our own ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("good", 1),
        ("bad bad good", -1),
        ("ha", 0.5),
        ("not good", -1),
        ("never the film was good", -1),
        ("not the film was so good", 1),
        # It reverses the next word that counts, and no other one.
        ("not bad good", 2),
        ("good not", 1),
        ("not not good", -1),
        ("", 0),
    ],
)
def test_a_negation_reverses_the_next_word_that_counts_within_its_reach(text, expected):
    words = np.array([[list(sentiment_language.WORDS).index(word) for word in text.split()]], dtype=np.int64)
    assert sentiment_language.balance(words).tolist() == [expected]


def test_sentences_mean_praise_as_often_as_their_balance_says():
    words, labels = sentiment_language.sentences(20_000, 8, np.random.default_rng(0))
    balance = sentiment_language.balance(words.numpy())
    for value in (-2, 0, 1):
        mine = labels.numpy()[balance == value]
        assert len(mine) > 500
        # four standard errors
        assert mine.mean() == pytest.approx(1 / (1 + math.exp(-value)), abs=4 * 0.5 / math.sqrt(len(mine)))


@pytest.mark.parametrize("kind", ["bidirectional", "stacked"])
def test_the_state_of_a_classifier_is_the_end_of_every_direction(kind):
    torch.manual_seed(0)
    model = sentiment_language.Classifier(kind)
    x = torch.tensor([[1, 2, 3, 4, 5]])
    outputs = model.lstm(model.embedding(x))[0][0]
    both = torch.cat([outputs[-1, :32], outputs[0, 32:]]) if kind == "bidirectional" else outputs[-1]
    torch.testing.assert_close(model(x), model.readout(both))
    assert model(x[:, :0]).item() == model.readout.bias.item()


@pytest.mark.slow
def test_our_own_classifiers_learn_the_language_and_the_figure_says_what_they_forget(tmp_path):
    jobs = IA_5.jobs(Options(quick=True))
    assert jobs[0].run() == jobs[0].run()
    data = IA_5.assemble([(job, job.run()) for job in jobs])
    IA_5.plot(data, tmp_path / "ia-5.png")
    held = {claim.statement: claim.outcome for claim in IA_5.claims(data)}
    assert len(held) == 6
    assert set(held.values()) == {"held"}, held
    # A classifier that counts for ever does not forget.
    for model in data["models"]:
        model["logits"] = {word: [sentiment_language.WORDS[word] * n for n in range(65)] for word in model["logits"]}
    failed = [claim.statement for claim in IA_5.claims(data) if claim.outcome == "failed"]
    assert len(failed) == 2
    assert all("forget too" in statement for statement in failed)
    for text in (IA_5.settings, IA_5.findings):
        assert text(data)
    assert len({line.count("|") for line in IA_5.table(data).splitlines()}) == 1


def test_folders_without_a_model_are_refused(tmp_path):
    (tmp_path / "sentiment").mkdir()
    with pytest.raises(ValueError, match="holds no model"):
        sentiment.find(tmp_path)
    (tmp_path / "sentiment" / "config.json").write_text("{}")
    pytest.importorskip("transformers")
    with pytest.raises(ValueError, match="holds no sequence classifier"):
        sentiment.load(tmp_path / "sentiment")
