"""From the clean image to a model's input and target, on the device.

A pair maker of your own is one class that follows `PairMaker`, and one line of YAML:
`data: {pairs: {class_path: mypackage.MyPairs}}`.
"""

from project.data.pairs.base import PairedInput, PairMaker, per_image
from project.data.pairs.color import Coloring, GrayToColor, LinesToColor, XDoG
from project.data.pairs.hints import Hints, PaletteHints, Point, SpatialHints
from project.data.pairs.noise import GaussianNoise, Noise, PoissonNoise, SaltAndPepper, resolve_pairs
