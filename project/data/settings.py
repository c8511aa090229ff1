"""What the data module is given: which values are allowed, and which of them the catalog depends on."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path, PurePath
from typing import Any, Literal, get_args

from project.data.cache import key_of
from workbench.errors import UserError

Target = Literal["image", "mask"]
InputRange = Literal["standardize", "zero_one", "minus_one_one"]
Balance = Literal["none", "tags"]
Protocol = Literal["seeded", "kair"]
OnBadImage = Literal["error", "skip"]
CHOICES = {
    "target": Target,
    "input_range": InputRange,
    "balance": Balance,
    "protocol": Protocol,
    "on_bad_image": OnBadImage,
}


@dataclass(frozen=True)
class Settings:
    """Everything that the catalog depends on: keys of `ImageDataModule`, and two that follow from them."""

    source: str = "demo"
    root: str | list[str] | None = None
    target_root: str | None = None
    target: str = "image"
    exclude: str | None = None
    extra_pairs: str | None = None
    channels: int = 3
    resize: int | None = None
    fractions: tuple[float, float, float] = (0.7, 0.2, 0.1)
    on_bad_image: str = "error"
    decoded_cache_gb: float = 2.0
    min_size: int = 2  # pixels that the shorter side of a file must have
    only_split: str | None = None  # the split that takes every image, sorted by name; no statistics then

    @property
    def pixels(self) -> dict[str, Any]:
        """How pixels are read: options of `PixelStore`."""
        return {"channels": self.channels, "resize": self.resize, "masks": self.target == "mask"}

    @property
    def file(self) -> str:
        """The catalog's name in the cache: another one with every setting; folders count by absolute paths."""
        return f"catalog-{key_of({**asdict(self), 'fractions': list(self.fractions), **self._folders()})}.json"

    @property
    def split_file(self) -> str:
        """split-SHARES-PLACE.json: changes with the fractions, and with where the images are."""
        place = key_of(self.source if self.root is None else "folder", self._folders())
        return f"split-{key_of(self.fractions, 42)}-{place}.json"

    def _folders(self) -> dict[str, Any]:
        roots = [self.root] if isinstance(self.root, str) else list(self.root or [])
        return {
            "root": [str(Path(root).expanduser().absolute()) for root in roots],
            "target_root": self.target_root and str(Path(self.target_root).expanduser().absolute()),
        }


def as_text(value: Any) -> Any:
    """Paths as text: as objects they would be pickled in the checkpoint."""
    if isinstance(value, list | tuple):
        return [as_text(one) for one in value]
    return str(value) if isinstance(value, PurePath) else value


def check_arguments(given: dict[str, Any]) -> None:
    """Raise a UserError for values that are wrong whatever the images are."""
    at_least_1 = ("batch_size", "eval_batch_size", "crops_per_image", "crop", "eval_crop", "resize")
    for name in (*at_least_1, "num_workers", "seed", "half_size_epochs"):
        least = int(name in at_least_1)
        if given[name] is not None and given[name] < least:
            raise UserError(f"data.{name} is {given[name]}: it must be at least {least}.")
    for name, kind in CHOICES.items():  # Python does not look at types
        if given[name] not in get_args(kind):
            raise UserError(f"data.{name} is {given[name]!r}: it must be one of {', '.join(get_args(kind))}.")
    if given["channels"] not in (1, 3):
        raise UserError(f"data.channels is {given['channels']}: it must be 1 (gray) or 3 (color).")
    shares = list(given["fractions"])
    if len(shares) != 3 or abs(sum(shares) - 1) > 1e-6 or min(shares) < 0 or shares[0] <= 0:
        raise UserError(f"data.fractions are {shares}: train (above 0), val and test must sum to 1: [0.7, 0.2, 0.1].")
    if given["crop"] and given["resize"] and given["crop"] > given["resize"]:
        raise UserError(
            f"data.crop is {given['crop']}, but data.resize makes every shorter side {given['resize']} pixels.\n"
            f"Use --data.crop {given['resize']}, or a larger --data.resize."
        )
    if given["weights"] and given["balance"] == "tags":
        raise UserError("data.weights and data.balance tags exclude each other: balance is all weights equal.")
    if given["target"] == "mask" and (given["extra_pairs"] or given["protocol"] == "kair"):
        raise UserError("data.target mask goes with neither data.extra_pairs nor data.protocol kair.")
