"""The site builds without a warning and without a network, stays small, and carries its formulas and links in itself."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import odernn

pytest.importorskip("sphinx", reason="the site is built where its tools are installed: pip install -e '.[docs]'")

ROOT = Path(odernn.__file__).parents[1]
LARGEST = 30e6


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Built from a copy, because the build writes generated pages beside the others."""
    copy, out = tmp_path_factory.mktemp("copy"), tmp_path_factory.mktemp("site")
    generated = shutil.ignore_patterns("generated", "gallery", "jupyter_execute", "__pycache__")
    shutil.copytree(ROOT / "docs", copy / "docs", ignore=generated)
    for name in ("reproduction", "README.md", "CHANGELOG.md", "CONTRIBUTING.md"):
        (copy / name).symlink_to(ROOT / name)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "sphinx", "-W", "-n", "-q", "-d", str(copy / "doctrees"), "docs", str(out)]
    built = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr[-5000:]
    return out


@pytest.mark.slow
def test_the_site_builds_and_is_small(site):
    assert (site / "index.html").is_file()
    assert sum(path.stat().st_size for path in site.rglob("*") if path.is_file()) < LARGEST


@pytest.mark.slow
def test_pages_load_nothing_from_elsewhere(site):
    """Neither scripts nor pictures nor fonts: links to other sites are links."""
    loaded = re.compile(r"<(?:script|img|iframe|link rel=\"stylesheet\")[^>]*(?:src|href)=\"(?:https?:)?//[^\"]*")
    found = {str(page.relative_to(site)): loaded.findall(page.read_text("utf-8")) for page in site.rglob("*.html")}
    assert {page: matches for page, matches in found.items() if matches} == {}


@pytest.mark.slow
def test_links_within_the_site_lead_somewhere(site):
    pages = {page: page.read_text("utf-8") for page in site.rglob("*.html")}
    anchors = {page: set(re.findall(r"\bid=\"([^\"]+)\"", text)) for page, text in pages.items()}
    broken = set()
    for page, text in pages.items():
        for link in re.findall(r"<a [^>]*href=\"([^\"]+)\"", text):
            path, _, anchor = link.partition("#")
            if re.match(r"\w+:|//", link) or not link:
                continue
            target = (page.parent / path).resolve() if path else page
            if not target.exists() or (anchor and target in anchors and anchor not in anchors[target]):
                broken.add((str(page.relative_to(site)), link))
    assert sorted(broken) == []
