"""From text to batches: sources, tokenizers, packing, mixtures and the loader with its resumable position."""
