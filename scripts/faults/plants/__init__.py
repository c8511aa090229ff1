"""Faults, planted one by one into small runs that would learn well without them."""

from __future__ import annotations

from plants import course, game, inside, rate, wiring
from plants.plant import Plant

PLANTS: list[Plant] = [*wiring.PLANTS, *rate.PLANTS, *inside.PLANTS, *game.PLANTS, *course.PLANTS]
