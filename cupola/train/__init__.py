"""Training: an experiment as a value, one compiled step, a loop that can be stopped and resumed."""
