"""Models that hear and models that speak."""
