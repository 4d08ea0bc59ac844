"""OpenFGA's HTTP API over the permission graph, so that its clients work unchanged."""
