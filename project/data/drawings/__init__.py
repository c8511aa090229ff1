"""Cartoon characters that the project draws itself, in lines and in colors; nothing is downloaded.

Single figures with outlines and flat colors on white. What a thing is says some of its colors: frogs are green,
flames orange, faces of a skin's color. The others, of clothes, hats and most hair, follow from nothing in the lines.

An image of them for the documentation, as the repository has it:

    python -c "from project.data.drawings import sheet
    sheet(range(24)).quantize(128, dither=0).save('docs/drawings.png', optimize=True)"
"""

from project.data.drawings.characters import draw, sheet
from project.data.drawings.source import Drawings

__all__ = ["Drawings", "draw", "sheet"]
