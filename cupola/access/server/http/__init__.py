"""The permission graph over HTTP: OpenFGA's API, AuthZEN, plain REST and the playground."""
