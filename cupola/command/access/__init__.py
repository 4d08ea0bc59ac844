"""`cupola access`: the permission graph from the command line."""
