"""Lists of images to leave out: as text, as a table, and with names that are not there."""

import pytest

from project.data.exclusions import read_exclusions
from project.data.images import Entry
from workbench.errors import UserError

ENTRIES = [
    Entry("/here/cat/a.png", "cat/a.png"),
    Entry("/here/b c.png", "b c.png"),
    Entry("/here/ü.png", "ü.png"),
    Entry("/here/#1, red.png", "#1, red.png"),
    Entry("/here/d #2.png", "d #2.png"),
]


@pytest.fixture
def read(tmp_path):
    """Writes a list, and reads it back."""

    def write_and_read(text, encoding="utf-8", entries=ENTRIES):
        path = tmp_path / "out.txt"
        path.write_text(text, encoding=encoding)
        return read_exclusions(str(path), entries)

    return write_and_read


def test_names_and_paths(read, tmp_path):
    entries = [*ENTRIES, Entry(str(tmp_path / "d.png"), "d.png")]
    listed = f"cat/a.png\n\n  ü.png  \n{tmp_path / 'd.png'}\n"
    assert read(listed, entries=entries) == {"cat/a.png", "ü.png", "d.png"}


def test_comments_but_not_where_a_name_has_that_sign(read):
    listed = "# dark ones\nb c.png  # a thumb before the lens\n#\n#1, red.png\nd #2.png\n  # the end"
    assert read(listed) == {"b c.png", "#1, red.png", "d #2.png"}


def test_an_empty_list_leaves_nothing_out(read):
    assert read("# none yet\n") == set()
    assert read("") == set()


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_table_gives_its_column_of_files(read, separator, encoding):
    rows = [["mse", "file", "note"], ["0.1", "ü.png", "x"], ["0.2", '"#1, red.png"', "cat/a.png"], ["0.3", "", ""]]
    table = "\n".join(separator.join(row) for row in rows)
    assert read(table, encoding) == {"ü.png", "#1, red.png"}


def test_a_table_of_files_alone(read):
    assert read("file\nb c.png\n") == {"b c.png"}


def test_unknown_names_get_the_nearest(read):
    with pytest.raises(UserError, match=r"names 9 images that are not there") as error:
        read("cat/a.jpg # dark\n" + "".join(f"nothing {n}\n" for n in range(8)))
    assert "cat/a.jpg (nearest: cat/a.png)" in str(error.value)
    assert "... and 4 more" in str(error.value)
    assert len(str(error.value).splitlines()) <= 10
    with pytest.raises(UserError, match=r"cat/b.png \(nearest: cat/a.png\)"):
        read("file,mse\ncat/b.png,0.1\n")


def test_a_file_that_cannot_be_read(tmp_path):
    with pytest.raises(UserError, match=r"--data.exclude .*nothing.txt cannot be read"):
        read_exclusions(str(tmp_path / "nothing.txt"), ENTRIES)
