"""Recipes: from files of crystals to the pairs and weights that are shipped."""
