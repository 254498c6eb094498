"""Sentiment scores of one word repeated, from a Hugging Face sequence classifier and its tokenizer in a local folder."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..engine.figure import job

# Below the folder of data sets: a model, or one folder for each of several.
FOLDER = "sentiment"
# What a folder with a model holds.
_CONFIG = "config.json"
_CHUNK = 2**20

# JSON values: what a job is told about its model, nothing of this machine.
Source = Mapping[str, str]


@dataclass(frozen=True)
class LocalModel:
    """A model in a folder.

    Args:
        source: {"name", "fingerprint"}: that of the folder, and sha256 of all its files.
        places: {"folder": where it lies}.
    """

    source: Source
    places: Mapping[str, str]


def find(data: Path | None) -> list[LocalModel]:
    """The models in DATA/sentiment; none where there is no such folder.

    Raises:
        ValueError: a folder without a model.
    """
    if data is None or not (data / FOLDER).is_dir():
        return []
    top = data / FOLDER
    folders = [top] if (top / _CONFIG).is_file() else sorted(path.parent for path in top.glob(f"*/{_CONFIG}"))
    if not folders:
        raise ValueError(
            f"{top} holds no model: expected {_CONFIG}, weights and tokenizer there, or in one folder for each model"
        )
    return [LocalModel({"name": folder.name, "fingerprint": _fingerprint(folder)}, {"folder": str(folder)}) for folder in folders]


def _fingerprint(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.iterdir() if path.is_file()):
        digest.update(path.name.encode())
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
    return digest.hexdigest()[:16]


def load(folder: Path) -> tuple[Any, Any]:
    """The classifier, in evaluation mode, and its tokenizer; nothing is asked of the network.

    Raises:
        ValueError: transformers is missing, or the folder holds no classifier and tokenizer that it can load.
    """
    # Before transformers is imported: it also looks for newer files of local models otherwise.
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    try:
        from transformers import AutoModelForSequenceClassification, AutoTokenizer
    except ModuleNotFoundError as error:
        raise ValueError("sentiment classifiers need transformers: pip install 'odernn[sentiment]'") from error
    try:
        model = AutoModelForSequenceClassification.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"{folder} holds no sequence classifier with its tokenizer: {' '.join(str(error).split())}") from error
    return model.eval(), tokenizer


@job("sentiment-of-repetition")
@torch.no_grad()
def repetition_scores(source: Source, word: str, longest: int, folder: str) -> dict[str, Any]:
    """y_n, the classifier's probability of its positive label for the word repeated n times, n = 0, 1, ....

    The text is the held input of [IA] Def 3.1 in the only form that a classifier takes it: as the whole sequence up to now. A
    bidirectional model sees all of it at once, so y_n is no output of one pass.

    Args:
        source, folder: as in `LocalModel`.
        word: repeated with spaces between.
        longest: largest n; less where the model's positions end before.

    Returns:
        "scores" y_n, (n + 1,), "label" the positive one.

    Source: [IA] Fig 5 and 6.
    """
    model, tokenizer = load(Path(folder))
    labels = {int(index): str(name) for index, name in model.config.id2label.items()}
    # By its name, else by the custom that the last label is the highest.
    positive = next((index for index, name in labels.items() if "pos" in name.lower()), max(labels))
    limit = min(getattr(model.config, "max_position_embeddings", tokenizer.model_max_length), tokenizer.model_max_length)
    scores = []
    for n in range(longest + 1):
        tokens = tokenizer(" ".join([word] * n), return_tensors="pt")
        if tokens["input_ids"].shape[1] > limit:
            break
        logits = model(**tokens).logits[0].double()
        # One output is the logit of the positive class.
        probability = logits.softmax(-1)[positive] if logits.numel() > 1 else logits[0].sigmoid()
        scores.append(float(probability))
    return {"scores": scores, "label": labels[positive]}
