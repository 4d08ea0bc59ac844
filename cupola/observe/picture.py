"""Pictures of matrices, such as where a decoder looked at each step, as arrays that a sink takes.

Drawn with matplotlib's objects alone, so no global state and no window is touched.
"""

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

INK = "#1f2937"


def heat(matrix: np.ndarray, *, title: str = "", across: str = "", up: str = "") -> np.ndarray:
    """Returns a picture of a matrix, the first row at the bottom: uint8 [400, 700, 3].

    Args:
        matrix: [rows, columns].
        title: stands above.
        across: what the columns are.
        up: what the rows are.
    """
    figure = Figure(figsize=(7, 4), dpi=100, layout=ConstrainedLayoutEngine(), facecolor="white")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    shown = axes.imshow(matrix, origin="lower", aspect="auto", interpolation="nearest", cmap="viridis")
    axes.set_title(title, loc="left", fontsize=11, color=INK)
    axes.set_xlabel(across, color=INK)
    axes.set_ylabel(up, color=INK)
    figure.colorbar(shown, ax=axes)
    canvas.draw()
    return np.ascontiguousarray(np.asarray(canvas.buffer_rgba())[..., :3])
