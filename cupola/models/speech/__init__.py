"""Models that speak: Tacotron 2, from symbols to log-mel frames, and the voice that makes sound of them."""
