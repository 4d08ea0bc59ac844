"""The book of recipes: short names, and whatever else names an experiment.

Invariant: an experiment's text is read without running code that it does not name from `cupola`.
"""

from collections.abc import Callable
from pathlib import Path

from cupola.config import text
from cupola.config.suggest import did_you_mean
from cupola.core.errors import ConfigError
from cupola.recipes.quickstart import quickstart
from cupola.recipes.tacotron2 import tacotron2, tacotron2_small
from cupola.recipes.vocoders import vocos, vocos_small, vocos_spectral, wavenet, wavenet_small
from cupola.train.experiment import Training
from cupola.train.folder import RunFolder

RECIPES: dict[str, Callable[[], Training]] = {
    "quickstart": quickstart,
    "tacotron2": tacotron2,
    "tacotron2-small": tacotron2_small,
    "vocos": vocos,
    "vocos-small": vocos_small,
    "vocos-spectral": vocos_spectral,
    "wavenet": wavenet,
    "wavenet-small": wavenet_small,
}


def find(name: str) -> Training:
    """Returns the experiment of a recipe's name, a run's folder, or a file with its text.

    Raises:
        ConfigError: it is none of them; the message names the nearest recipe.
    """
    if name in RECIPES:
        return RECIPES[name]()
    path = Path(name)
    if path.is_dir():
        return RunFolder.open(path).experiment()
    if path.is_file():
        try:
            made = text.parse(path.read_text(encoding="utf-8"))
        except UnicodeDecodeError:
            raise ConfigError(
                "is not text", where=name, remedy="Name a file that `cupola config show` wrote."
            ) from None
        if isinstance(made, Training):
            return made
        raise ConfigError(
            f"describes a {type(made).__name__}, not an Experiment",
            where=name,
            remedy="`cupola config show quickstart` prints what one looks like.",
        )
    raise ConfigError(
        f"there is no recipe, run or file {name!r}", where="experiment", remedy=did_you_mean(name, RECIPES)
    )
