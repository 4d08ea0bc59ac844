"""Servers of the permission graph: gRPC, HTTP, and who may call them."""
