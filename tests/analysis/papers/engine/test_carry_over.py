from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from analysis.papers.engine import records
from analysis.papers.engine.carry_over import carry_over

COMMITTED = Path(__file__).parents[4] / "reproduction" / "ia-11b"


@pytest.fixture
def old(tmp_path):
    """A committed figure as it was before its jobs had names."""
    folder = tmp_path / "out" / "ia-11b"
    shutil.copytree(COMMITTED, folder)
    record = records.read(folder / "record.json")
    for job in record["jobs"]:
        job["function"] = f"analysis.paper.phase_plane.{job.pop('job').removeprefix('plane-').replace('-', '_')}"
    records.write(folder / "record.json", record, indent=1)
    return folder


def test_functions_become_the_names_of_their_jobs_and_nothing_else_changes(old):
    assert carry_over(old)
    assert {path.name: path.read_bytes() for path in old.iterdir()} != {}
    for path in COMMITTED.iterdir():
        if path.name == "record.json":
            assert records.read(old / path.name) == records.read(path)
        else:
            assert (old / path.name).read_bytes() == path.read_bytes()
    assert not carry_over(old)


def test_values_that_have_another_name_are_renamed_in_settings_and_data_and_only_there(old):
    data = {"W": "old", "curves": [{"recurrence": "old", "law": "old", "rate": 1.5}, {"recurrence": "other"}]}
    record = records.read(old / "record.json")
    record["jobs"][0]["settings"] = {"family": {"recurrence": "old", "seed": 1}, "W": "old"}
    record["data_sha256"] = records.checksum(data)
    (old / "data.json").write_text(json.dumps(data))
    records.write(old / "record.json", record)
    assert carry_over(old, [("recurrence", "old", "new"), ("recurrence", "free_old", "free")])
    new = records.read(old / "record.json")
    assert new["jobs"][0]["settings"] == {"family": {"recurrence": "new", "seed": 1}, "W": "old"}
    assert records.read_value(old / "data.json", expected=new["data_sha256"]) == {
        "W": "old", "curves": [{"recurrence": "new", "law": "old", "rate": 1.5}, {"recurrence": "other"}],
    }  # fmt: skip
    assert new["claims"] == record["claims"]


def test_damaged_figures_and_unknown_functions_are_refused(old):
    record = records.read(old / "record.json")
    records.write(old / "record.json", {**record, "jobs": [{"function": "mine.compute", "settings": {}}]})
    with pytest.raises(ValueError, match=r"has a job mine\.compute that is not known"):
        carry_over(old)
    (old / "data.json").write_text("{}")
    with pytest.raises(ValueError, match="its checksum does not fit"):
        carry_over(old)


@pytest.mark.slow
def test_on_the_command_line_every_figure_of_a_folder_is_carried_over(old):
    def run(*arguments):
        command = [sys.executable, "-m", "analysis.papers.engine.carry_over", *map(str, arguments)]
        return subprocess.run(command, cwd=COMMITTED.parents[1], capture_output=True, text=True, check=False)

    assert run(old.parent).stdout == "1 of 1 figures carried over: ia-11b\n"
    assert run(old.parent, "--value", "recurrence:a=b").stdout == "0 of 1 figures carried over: none had to change\n"
    refused = run(old.parent, "--value", "recurrence")
    assert refused.returncode == 1
    assert refused.stderr == "carry_over: --value is 'recurrence', expected SETTING:OLD=NEW\n"
