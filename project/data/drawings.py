"""Line drawings of people, and the same drawings in color as targets: DiceBear avatars, made once into the cache."""

from __future__ import annotations

import colorsys
import io
import json
import re
from functools import lru_cache, partial
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from pathlib import Path
from random import Random
from typing import Any

from PIL import Image

from project.data.cache import Cache, key_of
from project.data.images import Entry, run_parallel
from workbench.console import rank_zero_print
from workbench.errors import UserError

STYLES = ("adventurer", "micah", "adventurer", "open-peeps")  # in turn; those with outlines, adventurer's vary most
CARD = 0.6  # share of the drawings on a card of any color, which only a hint can tell, instead of on paper
SKIN = ["fbdcc4", "f6cba6", "eab98c", "d99f6c", "b97a4b", "935a35", "6d4128"]
HAIR = ["5a3825", "7d4c29", "a56b34", "d9a441", "f1d27a", "c2542b", "b9b9bd", "4a4e78"]
INK = 40  # levels: a color with no channel above is ink and stays in the line art; every other becomes white
_HEX_COLOR = re.compile(r"#([0-9a-fA-F]{6}|[0-9a-fA-F]{3})\b")


def draw(number: int, size: int = 96) -> tuple[bytes, bytes]:
    """The drawing of that number as PNG: its lines (gray, dark on white), and itself in color (RGB), `size` a side."""
    from dicebear import Avatar

    random = Random(number)
    free = [_any_color(random) for _ in range(7)]  # light enough not to be taken for ink
    skin, hair = random.choice(SKIN), random.choice([*HAIR, *free[:4]])
    fills = {"skin": skin, "base": skin, "hair": hair, "headContrast": hair, "glasses": "000000"}
    fills |= {"shirt": free[4], "clothing": free[4], "earring": free[5]}
    fills["background"] = free[6] if random.random() < CARD else "ffffff"
    options: dict[str, Any] = {f"{part}Color": [f"#{color}"] for part, color in fills.items()}
    options |= {"seed": str(number), "flip": ["none", "horizontal"]}
    options |= {"translateX": [-4, 4], "translateY": [0, 5]}  # percent
    svg = Avatar(_style(STYLES[number % len(STYLES)]), options).to_string()
    return _png(_HEX_COLOR.sub(_ink_or_white, svg), size, "L"), _png(svg, size, "RGB")


class Drawings:
    """Paired source: `count` drawings as drawings-KEY/{lines,colors}/0000.png in the cache, `size` pixels a side."""

    def __init__(self, cache: Cache, count: int = 2000, size: int = 96) -> None:
        self.cache, self.count, self.size = cache, count, size
        try:
            versions = [version(package) for package in ("dicebear-core", "dicebear-styles", "resvg-py")]
        except PackageNotFoundError as error:
            raise UserError(
                f"data.source drawings needs a package that is not installed ({error.name}): pip install '.[drawings]'"
            ) from error
        code = Path(__file__).read_text(encoding="utf-8")  # what it drew before a change is not what it draws now
        self.folder = cache.path(f"drawings-{key_of(count, size, versions, code)}")

    def find(self) -> list[Entry]:
        """List them; the first time, draw them."""
        if not self.folder.is_dir():
            self._make()
        names = [f"{number:04d}.png" for number in range(self.count)]
        lines, colors = self.folder / "lines", self.folder / "colors"
        return [Entry(str(lines / name), name, target_path=str(colors / name)) for name in names]

    def _make(self) -> None:
        credits = "\n".join(_style(name).meta().license().text() for name in sorted(set(STYLES)))
        drawn = run_parallel(partial(draw, size=self.size), range(self.count), "Drawing characters")
        with self.cache.writing(self.folder.name, folder=True) as temporary:
            for part in ("lines", "colors"):
                (temporary / part).mkdir()
            (temporary / "CREDITS").write_text(credits + "\n", encoding="utf-8")
            for number, pair in enumerate(drawn):
                for part, png in zip(("lines", "colors"), pair, strict=True):
                    (temporary / part / f"{number:04d}.png").write_bytes(png)
        rank_zero_print(f"{self.count} drawings are now in {self.folder}. Credits:\n{credits}")


def _any_color(random: Random) -> str:
    channels = colorsys.hsv_to_rgb(random.random(), random.uniform(0.15, 0.9), random.uniform(0.45, 1))
    return bytes(round(255 * channel) for channel in channels).hex()


def _ink_or_white(match: re.Match[str]) -> str:
    digits = match[1] if len(match[1]) == 6 else "".join(2 * digit for digit in match[1])
    return match[0] if max(bytes.fromhex(digits)) <= INK else "#ffffff"


@lru_cache
def _style(name: str) -> Any:
    from dicebear import Style

    return Style(json.loads(files("dicebear_styles").joinpath(f"{name}.json").read_text("utf-8")))


def _png(svg: str, size: int, mode: str) -> bytes:
    import resvg_py

    rendered = resvg_py.svg_to_bytes(svg, width=size, height=size, background="white", skip_system_fonts=True)
    file = io.BytesIO()
    Image.open(io.BytesIO(bytes(rendered))).convert(mode).save(file, "PNG")
    return file.getvalue()
