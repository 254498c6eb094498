from __future__ import annotations

import json
import shutil

import pytest
import torch

from odernn.runs import RunDirectory, replace_file


def test_a_file_is_replaced_as_a_whole(tmp_path):
    path = tmp_path / "table.csv"
    replace_file(path, b"old")
    replace_file(path, "κ = r T\n")
    assert path.read_text(encoding="utf-8") == "κ = r T\n"
    assert list(tmp_path.iterdir()) == [path]


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "table.csv"
    replace_file(path, "old")

    def no_room(_):
        raise OSError("no space left on device")

    monkeypatch.setattr("os.fsync", no_room)
    with pytest.raises(OSError, match="no space left"):
        replace_file(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


CONFIG = {"experiment": {"hidden_size": 4}}


def names(path):
    return sorted(file.name for file in path.iterdir())


def test_what_a_killed_writer_left_is_taken_over_and_removed(tmp_path):
    path = tmp_path / "run"
    path.mkdir()
    leftovers = [".config.json.14142", ".best.pt.1", ".checkpoint.pt.99", ".training.png.7", ".lock"]
    for name in leftovers:
        (path / name).write_bytes(b"half")
    with pytest.raises(ValueError, match=r"nothing is written there yet.*give the command of its run again"):
        RunDirectory.open(path)
    RunDirectory.create(path, CONFIG)
    assert names(path) == ["config.json"]
    for name in leftovers:
        (path / name).write_bytes(b"half")
    with RunDirectory.open(path).writing():
        pass
    assert names(path) == ["config.json"]


def test_a_file_of_the_user_is_no_leftover(tmp_path):
    for name in (".best.pt", ".best.pt.old", ".notes.txt.14142", "best.pt.14142"):
        path = tmp_path / name[1:]
        path.mkdir()
        (path / name).write_bytes(b"mine")
        with pytest.raises(ValueError, match="is not a run directory: choose another --out"):
            RunDirectory.create(path, CONFIG, overwrite=True)
        assert names(path) == [name]


def test_a_run_that_came_to_nothing_is_begun_again_by_the_same_config_alone(tmp_path):
    path = tmp_path / "run"
    RunDirectory.create(path, CONFIG)
    RunDirectory.create(path, CONFIG)
    with pytest.raises(ValueError, match="holds a run already"):
        RunDirectory.create(path, {"experiment": {"hidden_size": 8}})
    RunDirectory.open(path).save_checkpoint({"epoch": 0})
    with pytest.raises(ValueError, match="holds a run already"):
        RunDirectory.create(path, CONFIG)


def test_a_directory_is_held_from_its_creation_on(tmp_path):
    path = tmp_path / "run"
    first = RunDirectory.create(path, CONFIG, hold=True)
    for overwrite in (False, True):
        with pytest.raises(ValueError, match=r"is being written by process \d+ on"):
            RunDirectory.create(path, {"experiment": {}}, overwrite=overwrite)
    with pytest.raises(ValueError, match="is being written by process"), RunDirectory.open(path).writing():
        pass
    assert first.config() == CONFIG
    first.unlock()
    RunDirectory.create(path, {"experiment": {}}, overwrite=True)


def test_a_directory_that_nobody_had_is_found_for_each(tmp_path):
    made = [RunDirectory.create_beside(tmp_path / "runs" / "noon", CONFIG).path.name for _ in range(3)]
    assert made == ["noon", "noon-2", "noon-3"]


def test_a_directory_removed_while_it_is_written_is_not_made_again(tmp_path):
    run = RunDirectory.create(tmp_path / "run", CONFIG, hold=True)
    shutil.rmtree(run.path)
    assert run.others() == run.files() == []
    with pytest.raises(OSError, match=r"run/best.pt \(.*removed or replaced.*give the same command again"):
        run.save_best({})
    other = RunDirectory.create(tmp_path / "run", {"experiment": {"other": True}}, hold=True)
    with pytest.raises(OSError, match="removed or replaced"):
        run.save_best({})
    assert sorted(set(names(run.path)) - {".lock"}) == ["config.json"]
    other.unlock()


def test_a_write_that_fails_names_the_file_and_how_to_go_on(tmp_path, monkeypatch):
    run = RunDirectory.create(tmp_path / "run", CONFIG)
    run.save_checkpoint({"epoch": 1})

    def no_room(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", no_room)
    with pytest.raises(OSError, match=r"run/best.pt \(No space left on device\): mend that, then go on with --resume .*run$"):
        run.save_best({})
    assert names(run.path) == ["checkpoint.pt", "config.json"]


def test_weights_of_other_settings_are_refused(tmp_path):
    run = RunDirectory.create(tmp_path / "run", CONFIG)
    run.save_best({"c": 1}, "0" * 16)
    assert run.load_best("0" * 16) == {"c": 1}
    with pytest.raises(ValueError, match="belongs to other settings"):
        run.load_best("1" * 16)


def test_a_changed_config_is_refused_and_says_what_to_do(tmp_path):
    run = RunDirectory.create(tmp_path / "run", CONFIG)
    text = (run.path / "config.json").read_text()
    (run.path / "config.json").write_text(text.replace("4", "5", 1))
    with pytest.raises(ValueError, match='was changed since it was written: undo the change, or delete its entry "sha256"'):
        run.config()


def test_a_run_whose_config_is_damaged_may_be_overwritten_but_is_not_opened(tmp_path):
    run = RunDirectory.create(tmp_path / "run", CONFIG)
    run.save_checkpoint({"epoch": 1})
    (run.path / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config.json is damaged"):
        RunDirectory.open(run.path)
    with pytest.raises(ValueError, match="holds a run already"):
        RunDirectory.create(run.path, CONFIG)
    RunDirectory.create(run.path, CONFIG, overwrite=True)
    assert names(run.path) == ["config.json"]


def test_a_file_without_a_seal_is_no_file_of_a_sealed_run(tmp_path):
    run = RunDirectory.create(tmp_path / "run", CONFIG)
    torch.save({"c": torch.zeros(1)}, run.path / "best.pt")
    with pytest.raises(ValueError, match="carries no seal, so this run did not write it"):
        run.load_best()


def test_a_run_of_the_version_without_seals_is_read_with_a_warning(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"kind": "odernn run", "format": 1, **CONFIG}))
    torch.save({"c": torch.ones(1)}, tmp_path / "best.pt")
    run = RunDirectory.open(tmp_path)
    assert run.config() == CONFIG
    with pytest.warns(UserWarning, match="carries no seal"):
        assert run.load_best()["c"] == 1


@pytest.mark.parametrize("version", [0, 3, "2", 2.0, None, True])
def test_a_config_of_an_unknown_format_is_refused(tmp_path, version):
    (tmp_path / "config.json").write_text(json.dumps({"kind": "odernn run", "format": version, **CONFIG}))
    with pytest.raises(ValueError, match="was written in format"):
        RunDirectory.open(tmp_path).config()
