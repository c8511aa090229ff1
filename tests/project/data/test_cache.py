"""Things in the cache are whole or not there, and a bad cache folder is said with its key."""

import pytest

from project.data.cache import Cache, key_of
from workbench.errors import UserError


def test_reads_what_was_written_and_nothing_where_there_is_nothing(tmp_path):
    cache = Cache(tmp_path / "new" / "cache")
    assert cache.read_json("a.json") is None
    cache.write_json("deep/a.json", {"ü": [1, 2.5, None]})
    assert cache.read_json("deep/a.json") == {"ü": [1, 2.5, None]}


@pytest.mark.parametrize("content", [b"", b'{"a": 1', b"\xff\xfe", b"[1]"])
def test_a_damaged_file_is_said_and_taken_as_missing(tmp_path, content):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.warns(UserWarning, match="damaged"):
        assert Cache(tmp_path).read_json("a.json") is None


def test_an_interrupted_write_leaves_the_old_file_and_no_other(tmp_path):
    cache = Cache(tmp_path)
    cache.write_json("a.json", {"old": 1})
    with pytest.raises(KeyboardInterrupt), cache.writing("a.json") as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert cache.read_json("a.json") == {"old": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_writing_the_same_again_does_not_touch_the_file(tmp_path, monkeypatch):
    cache = Cache(tmp_path)
    cache.write_json("a.json", {"a": 1})
    monkeypatch.setattr(Cache, "writing", lambda *_: pytest.fail("written again"))
    cache.write_json("a.json", {"a": 1})


def test_a_folder_that_cannot_be_made_names_the_key(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"--data.cache_dir"):
        Cache(tmp_path / "file" / "cache").write_json("a.json", {})


def test_a_full_disk_names_the_key(tmp_path):
    with pytest.raises(UserError, match=r"No space left.*\n.*--data.cache_dir"), Cache(tmp_path).writing("a"):
        raise OSError(28, "No space left on device")


def test_a_folder_is_whole_or_not_there(tmp_path):
    cache = Cache(tmp_path / "cache")
    with pytest.raises(KeyboardInterrupt), cache.filling("set") as temporary:
        (temporary / "a").touch()
        raise KeyboardInterrupt
    assert list(cache.folder.iterdir()) == []
    with cache.filling("set") as temporary:
        (temporary / "a").touch()
        assert not cache.path("set").exists()
    assert [path.name for path in cache.folder.rglob("*")] == ["set", "a"]


def test_the_first_of_two_processes_fills_a_folder(tmp_path):
    cache = Cache(tmp_path)
    with cache.filling("set") as slow:
        (slow / "slow").touch()
        with cache.filling("set") as fast:
            (fast / "fast").touch()
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["fast", "set"]


def test_a_folder_that_cannot_be_renamed_names_the_key(tmp_path):
    (tmp_path / "set").write_text("a file is in its place")
    with pytest.raises(UserError, match=r"--data.cache_dir"), Cache(tmp_path).filling("set"):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_keys_differ_with_each_value_and_not_with_the_order_of_a_dictionary():
    assert key_of({"a": 1, "b": 2}) == key_of({"b": 2, "a": 1})
    assert len({key_of(1, "a"), key_of(1, "b"), key_of(2, "a"), key_of("1", "a"), key_of([1], "a")}) == 5
