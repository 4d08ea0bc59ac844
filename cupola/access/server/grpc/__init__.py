"""The gRPC server of `authzed.api.v1`, as SpiceDB's clients know it."""
