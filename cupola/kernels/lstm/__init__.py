"""Long short-term memory over time."""

from cupola.kernels.lstm.api import lstm as lstm
