"""All recipes, one for each file that ships."""

from __future__ import annotations

from scripts.rebuild import tables, texts
from scripts.rebuild.common import Recipe

RECIPES: tuple[Recipe, ...] = (*tables.RECIPES, *texts.RECIPES)
