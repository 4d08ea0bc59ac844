import numpy as np

from cupola.observe.picture import heat


def test_the_first_row_is_at_the_bottom_and_what_is_more_is_brighter():
    matrix = np.zeros((10, 20))
    matrix[0] = 1.0
    picture = heat(matrix, title="a", across="frame", up="symbol")
    assert picture.dtype == np.uint8
    assert picture.shape == (400, 700, 3)
    light = picture.astype(float).sum(-1)[:, 200:400]
    drawn = light[(light < 700).all(1)]  # rows of pixels inside the axes
    assert drawn[-5].mean() > 2 * drawn[5].mean()
