"""Recipes: ordered steps read from TOML, and the only place where techniques meet."""

from compress.recipe.run import run_recipe as run_recipe
from compress.recipe.toml import Recipe as Recipe
from compress.recipe.toml import load_recipe as load_recipe
