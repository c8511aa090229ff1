"""From the clean image to what a model sees and what it should answer, on the device.

A pair maker of one's own is one class that follows `PairMaker`, and one line of YAML:

    data:
      pairs:
        class_path: mypackage.MyPairs
"""

from project.data.pairs.base import Given, PairMaker, each_alone
from project.data.pairs.color import Coloring, GrayToColor, LinesToColor
from project.data.pairs.fitting import fitting_pairs
from project.data.pairs.hints import Hints, NoHints, Point
from project.data.pairs.lines import AdaptiveThreshold, LineMaker, XDoG
from project.data.pairs.noise import GaussianNoise, Noise, PoissonNoise, SaltAndPepper
from project.data.pairs.palette import PaletteHints
from project.data.pairs.spatial import SpatialHints

__all__ = [
    "AdaptiveThreshold",
    "Coloring",
    "GaussianNoise",
    "Given",
    "GrayToColor",
    "Hints",
    "LineMaker",
    "LinesToColor",
    "NoHints",
    "Noise",
    "PairMaker",
    "PaletteHints",
    "Point",
    "PoissonNoise",
    "SaltAndPepper",
    "SpatialHints",
    "XDoG",
    "each_alone",
    "fitting_pairs",
]
