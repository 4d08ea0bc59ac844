"""Training of models that speak: data, scores, what a run shows, and the voice that it leaves."""
