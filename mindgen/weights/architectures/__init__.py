"""A module for each kind of model that is served, with its ARCHITECTURE."""
