"""The papers behind what was used."""

from __future__ import annotations

import ast
import re

import pytest
import torch
from test_house import SOURCES

import analysis
import odernn
from odernn import citations


@pytest.fixture
def session(monkeypatch):
    monkeypatch.setattr(citations, "_used", {})


def keys(text):
    return re.findall(r"^@\w+\{(\w+),", text, flags=re.MULTILINE)


def test_nothing_used_leaves_the_main_paper(session):
    assert keys(odernn.citation()) == ["IA"]


def test_a_session_lists_models_recurrences_and_measures(session):
    model = odernn.StateSpaceModel(1, 2, 1, "linear", "lru", "exp", seed=0)
    analysis.complex_stability_radius(-torch.eye(2))
    assert model.input_size == 1
    assert keys(odernn.citation()) == ["IA", "SSM", "StableSSM", "LRU", "Byers1988", "Boyd1990"]


def test_given_things_are_cited_alone(session):
    odernn.StateSpaceModel(1, 2, 1, seed=0)
    assert keys(odernn.citation(analysis.memory_capacity)) == ["IA", "Jaeger2001"]
    assert keys(odernn.citation(odernn.TorchDiffEq())) == ["IA", "Chen2018"]
    assert keys(odernn.citation(3.0, "text")) == ["IA"]


def test_entries_have_what_a_citation_needs():
    for key, entry in citations.PAPERS.items():
        assert re.match(r"@\w+\{" + key + ",", entry), entry
        for field in ("title", "author", "year"):
            assert re.search(rf"^  {field} = \{{.+\}},$", entry, flags=re.MULTILINE), (key, field)
        assert entry.count("{") == entry.count("}"), key


def test_keys_in_docstrings_are_papers():
    """A key is one word in brackets that follows 'Source:', or a year."""
    named = {
        (str(path), key)
        for path, text in SOURCES.items()
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        for source in re.findall(r"Source: (.*?)(?:\n\n|$)", ast.get_docstring(node) or "", flags=re.DOTALL)
        for key in re.findall(r"\[([A-Za-z]\w+)\]", source)
    }
    assert named
    assert sorted(pair for pair in named if pair[1] not in citations.PAPERS) == []


def test_every_paper_stands_behind_something():
    text = "\n".join(SOURCES.values())
    assert [key for key in citations.PAPERS if f"[{key}]" not in text] == []
