"""Random worlds, asked of Cupola and of the real engines: what `bench/access_differential.py` is made of."""
