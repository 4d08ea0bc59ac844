"""What every model stands on: modules, parameters, dims, meshes, precision, random streams."""
