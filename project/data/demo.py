"""The photographs that scikit-image's wheel carries under terms that let anybody use them: nothing is downloaded."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import NamedTuple

from lightning.pytorch.utilities.rank_zero import rank_zero_warn

from project.data.images import Entry
from workbench.errors import UserError


class Photograph(NamedTuple):
    """One file of skimage/data, with the term that skimage/data/_fetchers.py states for it."""

    file: str
    term: str
    credit: str


# Left out of the wheel's images: those whose terms are not stated or only "no known restrictions" (moon, page, coins,
# ihc, motorcycle), drawings (horse, logo, text, phantom), and microaneurysms, smaller (102 px) than a usual crop.
PHOTOGRAPHS = (
    Photograph("astronaut.png", "public domain", "NASA, Eileen Collins"),
    Photograph("chelsea.png", "CC0", "Stefan van der Walt, a cat"),
    Photograph("coffee.png", "CC0", "Rachel Michetti, courtesy of Pikolo Espresso Bar"),
    Photograph("rocket.jpg", "public domain", "SpaceX, launch of DSCOVR"),
    Photograph("retina.jpg", "CC0", "Mikael Häggström, fundus of a normal left eye"),
    Photograph("hubble_deep_field.jpg", "public domain", "NASA, Hubble eXtreme Deep Field"),
    Photograph("camera.png", "CC0", "Lav Varshney, gray"),
    Photograph("brick.png", "CC0", "CC0Textures, Bricks25, gray"),
    Photograph("grass.png", "CC0", "linolafett on DeviantArt, Grass 01, gray"),
    Photograph("gravel.png", "CC0", "CC0Textures, Gravel04, gray"),
    Photograph("cell.png", "CC0", "Paul Müller and others, phase image of a cell, gray"),
    Photograph("clock_motion.png", "public domain", "Stefan van der Walt, a clock in motion, gray"),
)


class Demo:
    """The embedded photographs, six in color and six gray."""

    def find(self) -> list[Entry]:
        """List them; raise UserError where scikit-image is not installed or carries none of them."""
        spec = importlib.util.find_spec("skimage")  # finds the folder without importing the library
        folder = Path(spec.submodule_search_locations[0]) / "data" if spec else Path("skimage/data")
        entries = [
            Entry(str(folder / photo.file), photo.file) for photo in PHOTOGRAPHS if (folder / photo.file).is_file()
        ]
        if not entries:
            raise UserError(
                f"--data.source demo needs the photographs of scikit-image, and {folder} holds none of them.\n"
                "Install it (make setup), or give your own images with --data.root FOLDER."
            )
        if len(entries) < len(PHOTOGRAPHS):
            rank_zero_warn(f"This scikit-image carries {len(entries)} of the {len(PHOTOGRAPHS)} demo photographs.")
        return entries
