"""What is to be restored, where the answers go, and what is done already."""

from __future__ import annotations

import difflib
import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from project.data.folder import walk
from project.inference.prediction.pictures import FORMATS
from workbench.errors import UserError


@dataclass(frozen=True)
class Job:
    """One image to restore.

    Attributes:
        name: POSIX path relative to the input folder (the file's name for a single file).
        source: The image.
        target: Where the restored one goes: the same relative path, another extension only where the format demands it.
        noisy: Where the input with noise goes, if noise is to be added.
        problem: Why it cannot be read, known beforehand (a folder that cannot be opened); empty otherwise.
    """

    name: str
    source: Path
    target: Path
    noisy: Path | None = None
    problem: str = ""

    def is_done(self, checkpoint: Path) -> bool:
        """Whether a whole answer is there, no older than what it was made from: the image and the checkpoint."""
        wanted = [self.target] if self.noisy is None else [self.target, self.noisy]
        try:
            made_from = max(_modified(self.source), _modified(checkpoint))
            return min(_modified(path) for path in wanted) >= made_from
        except OSError:
            return False


def plan(source: Path, output: Path, *, recursive: bool = True, as_png: bool = False, noise: bool = False) -> list[Job]:
    """List the images of a file or folder with their places in the output folder, sorted by name.

    An output folder inside the input folder is left aside: a second run must not restore the answers of the first.

    Raises:
        UserError: The input is missing or holds no image; the output is no folder, is the input folder, or would hold
            one file for two images; an answer would take the place of an image.
    """
    source, output = source.expanduser(), output.expanduser()
    _check_output(source, output)
    found = _pictures_in(source, output, recursive) if source.is_dir() else [(source.name, source, "")]
    jobs = [_job(name, path, problem, output, as_png, noise) for name, path, problem in found]
    _check_targets(jobs)
    return jobs


def _job(name: str, path: Path, problem: str, output: Path, as_png: bool, noise: bool) -> Job:
    relative = PurePosixPath(name)
    if as_png or relative.suffix.lower() not in FORMATS:
        relative = relative.with_suffix(".png")
    noisy = output / relative.with_name(f"{relative.stem}.noisy.png") if noise else None
    return Job(name, path, output / relative, noisy, problem)


def _pictures_in(folder: Path, output: Path, recursive: bool) -> list[tuple[str, Path, str]]:
    real_folder, real_output = folder.resolve(), output.resolve()
    own = real_output.relative_to(real_folder).as_posix() + "/" if real_output.is_relative_to(real_folder) else None
    found = [
        (name, Path(path), problem)
        for name, path, problem in walk(folder, "--input")
        if (recursive or "/" not in name) and not (own and name.startswith(own))
    ]
    if not found:
        raise UserError(
            f"--input {folder} holds no image of its own"
            + (", only those of the output folder." if recursive else "; look into its folders with --recursive true.")
        )
    return found


def _check_output(source: Path, output: Path) -> None:
    if not source.exists():
        near = difflib.get_close_matches(source.name, [path.name for path in source.parent.glob("*")], n=1)
        hint = f"Did you mean {source.parent / near[0]}?" if near else "Give an image or a folder of images."
        raise UserError(f"--input {source} does not exist.\n{hint}")
    if output.exists() and not output.is_dir():
        raise UserError(f"--output {output} is a file; give a folder.")
    if not output.exists() and output.suffix.lower() in FORMATS:
        raise UserError(f"--output {output} looks like a file; give the folder that the image is to be written into.")
    if output.resolve() == (source if source.is_dir() else source.parent).resolve():
        raise UserError(
            f"--output {output} is the folder of the images, which would be overwritten.\nGive another folder."
        )


def _check_targets(jobs: list[Job]) -> None:
    """No two images may end in one file, and none in the place of another image."""
    sources = {_key(job.source): job.name for job in jobs}
    taken: dict[str, str] = {}
    for job in jobs:
        for path in (job.target, job.noisy):
            if path is None:
                continue
            key = _key(path)
            if key in sources:
                raise UserError(
                    f"The answer to {job.name} would overwrite the image {path}.\n"
                    "Give an --output outside the folder of the images."
                )
            if key in taken:
                raise UserError(
                    f"{taken[key]} and {job.name} would both become {path}.\n"
                    "Rename one of them, or restore them into two folders."
                )
            taken[key] = job.name


def _key(path: Path) -> str:
    return os.path.normcase(path.parent.resolve() / path.name)


def _modified(path: Path) -> int:
    about = path.stat()
    if about.st_size == 0:
        raise OSError(f"{path} is empty")
    return about.st_mtime_ns
