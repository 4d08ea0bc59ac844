"""How parameters learn: schedules, optimizers over optax, groups, clipping, accumulation, averages."""
