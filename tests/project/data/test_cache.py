"""Things in the cache are whole or not there, a bad cache folder is an error that names its key; threads keep order."""

import pytest

from project.data import images
from project.data.cache import Cache, key_of
from project.data.images import run_parallel
from workbench.errors import UserError


@pytest.mark.parametrize("content", [b"", b'{"a": 1', b"\xff\xfe"])
def test_a_damaged_file_is_reported_and_taken_as_missing(tmp_path, content):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.warns(UserWarning, match="damaged"):
        assert Cache(tmp_path).read_json("a.json") is None


def test_an_interrupted_write_leaves_the_old_file_and_no_other(cache, monkeypatch):
    assert cache.read_json("a.json") is None
    cache.write_json("a.json", {"old": 1})
    with pytest.raises(KeyboardInterrupt), cache.writing("a.json") as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert cache.read_json("a.json") == {"old": 1}
    assert [path.name for path in cache.folder.iterdir()] == ["a.json"]
    # The same again does not touch the file, so that a complete cache may be read-only.
    monkeypatch.setattr(Cache, "writing", lambda *_: pytest.fail("written again"))
    cache.write_json("a.json", {"old": 1})


def test_a_folder_that_cannot_be_made_or_renamed_and_a_full_disk_name_the_key(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"--data.cache_dir"):
        Cache(tmp_path / "file" / "cache").write_json("a.json", {})
    with pytest.raises(UserError, match=r"--data.cache_dir"), Cache(tmp_path).writing("file", folder=True):
        pass
    with pytest.raises(UserError, match=r"No space left.*\n.*--data.cache_dir"), Cache(tmp_path).writing("a"):
        raise OSError(28, "No space left on device")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_folder_is_whole_or_not_there_and_the_first_stays(cache):
    with pytest.raises(KeyboardInterrupt), cache.writing("set", folder=True) as temporary:
        (temporary / "a").touch()
        raise KeyboardInterrupt
    assert list(cache.folder.iterdir()) == []
    with cache.writing("set", folder=True) as slow:
        (slow / "slow").touch()
        with cache.writing("set", folder=True) as fast:
            (fast / "fast").touch()
            assert not cache.path("set").exists()
    assert sorted(path.name for path in cache.folder.rglob("*")) == ["fast", "set"]


def test_keys_differ_with_each_value_and_not_with_the_order_of_a_dictionary():
    assert key_of({"a": 1, "b": 2}) == key_of({"b": 2, "a": 1})
    assert len({key_of(1, "a"), key_of(1, "b"), key_of(2, "a"), key_of("1", "a"), key_of([1], "a")}) == 5


@pytest.mark.parametrize("workers", [1, 3])
def test_threads_keep_the_order_pass_failures_and_do_not_run_far_ahead(workers, monkeypatch):
    monkeypatch.setattr(images, "usable_cores", lambda: workers)
    for total in (0, 1, 50):
        results = run_parallel(lambda number: number * number, range(total), "Counting")
        assert list(results) == [number * number for number in range(total)]
    with pytest.raises(ZeroDivisionError):
        list(run_parallel(lambda number: 1 / number, range(3), "Dividing"))
    done = []
    results = run_parallel(done.append, range(100), "Decoding")
    next(results)
    assert len(done) <= images.AHEAD * workers
    assert len(list(results)) == 99
