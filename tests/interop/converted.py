"""Files as CTranslate2 writes them, made of any arrays; and a Whisper's arrays under its names."""

import struct

import jax
import numpy as np

from cupola.layers.repeat import unstacked

CODES = {"float32": 0, "int8": 1, "int16": 2, "int32": 3, "float16": 4}


def packed(arrays, same=None, kind="WhisperSpec"):
    """Returns the bytes of a model.bin."""

    def text(word):
        return struct.pack("<H", len(word) + 1) + word.encode() + b"\0"

    out = [struct.pack("<I", 6), text(kind), struct.pack("<II", 3, len(arrays))]
    for name, array in arrays.items():
        out += [text(name), struct.pack(f"<B{array.ndim}I", array.ndim, *array.shape)]
        out += [struct.pack("<BI", CODES[array.dtype.name], array.nbytes), array.tobytes()]
    out.append(struct.pack("<I", len(same or {})))
    out += [text(alias) + text(name) for alias, name in (same or {}).items()]
    return b"".join(out)


def at_huggingface(model, params):
    """Returns a Whisper's tensors as Hugging Face names and turns them, written out by hand."""
    p = jax.tree.map(np.asarray, unstacked(model, params))
    width = model.width
    held = {}

    def norm(name, of):
        held[f"{name}.weight"], held[f"{name}.bias"] = of["scale"], of["offset"]

    def linear(name, of, part):
        held[f"{name}.weight"] = of[part].reshape(-1, width).T if part == "output" else of[part].reshape(width, -1).T
        if f"{part}_bias" in of:
            held[f"{name}.bias"] = of[f"{part}_bias"].reshape(-1)

    def attention(name, of):
        for theirs, part in (("q_proj", "query"), ("k_proj", "key"), ("v_proj", "value"), ("out_proj", "output")):
            linear(f"{name}.{theirs}", of, part)

    for side in ("encoder", "decoder"):
        for number, layer in enumerate(p[side]["stack"]["block"]):
            at = f"model.{side}.layers.{number}"
            attention(f"{at}.self_attn", layer["attention"])
            norm(f"{at}.self_attn_layer_norm", layer["attention_norm"])
            if side == "decoder":
                attention(f"{at}.encoder_attn", layer["cross_attention"])
                norm(f"{at}.encoder_attn_layer_norm", layer["cross_attention_norm"])
            for theirs, part in (("fc1", "up"), ("fc2", "down")):
                held[f"{at}.{theirs}.weight"] = layer["feed_forward"][part].T
                held[f"{at}.{theirs}.bias"] = layer["feed_forward"][f"{part}_bias"]
            norm(f"{at}.final_layer_norm", layer["feed_forward_norm"])
        norm(f"model.{side}.layer_norm", p[side]["norm"])
        held[f"model.{side}.embed_positions.weight"] = p[side]["positions"]
    for theirs, ours in (("conv1", "first"), ("conv2", "second")):
        held[f"model.encoder.{theirs}.weight"] = p["encoder"][ours].transpose(2, 1, 0)
        held[f"model.encoder.{theirs}.bias"] = p["encoder"][f"{ours}_bias"]
    held["model.decoder.embed_tokens.weight"] = p["decoder"]["embedding"]["table"]
    return {name: np.ascontiguousarray(array) for name, array in held.items()}


def at_ctranslate2(model, params):
    """Returns the arrays of the same model as CTranslate2's converter joins and names them."""
    theirs = at_huggingface(model, params)
    held = {}

    def pair(name, of, ends=("weight", "bias")):
        held[f"{name}/{ends[0]}"], held[f"{name}/{ends[1]}"] = theirs[f"{of}.weight"], theirs[f"{of}.bias"]

    def joined(name, of, parts):
        held[f"{name}/weight"] = np.concatenate([theirs[f"{of}.{part}.weight"] for part in parts])
        zeros = np.zeros(model.width, np.float32)
        held[f"{name}/bias"] = np.concatenate([theirs.get(f"{of}.{part}.bias", zeros) for part in parts])

    def norm(name, of):
        pair(f"{name}/layer_norm", of, ("gamma", "beta"))

    for side, stack in (("encoder", model.encoder.stack), ("decoder", model.decoder.stack)):
        for number in range(stack.layers):
            at, of = f"{side}/layer_{number}", f"model.{side}.layers.{number}"
            norm(f"{at}/self_attention", f"{of}.self_attn_layer_norm")
            joined(f"{at}/self_attention/linear_0", f"{of}.self_attn", ("q_proj", "k_proj", "v_proj"))
            pair(f"{at}/self_attention/linear_1", f"{of}.self_attn.out_proj")
            if side == "decoder":
                norm(f"{at}/attention", f"{of}.encoder_attn_layer_norm")
                pair(f"{at}/attention/linear_0", f"{of}.encoder_attn.q_proj")
                joined(f"{at}/attention/linear_1", f"{of}.encoder_attn", ("k_proj", "v_proj"))
                pair(f"{at}/attention/linear_2", f"{of}.encoder_attn.out_proj")
            norm(f"{at}/ffn", f"{of}.final_layer_norm")
            pair(f"{at}/ffn/linear_0", f"{of}.fc1")
            pair(f"{at}/ffn/linear_1", f"{of}.fc2")
        norm(side, f"model.{side}.layer_norm")
        held[f"{side}/position_encodings/encodings"] = theirs[f"model.{side}.embed_positions.weight"]
        held[f"{side}/num_heads"] = np.asarray(stack.block.attention.heads, np.int16)
    pair("encoder/conv1", "model.encoder.conv1")
    pair("encoder/conv2", "model.encoder.conv2")
    held["decoder/embeddings/weight"] = theirs["model.decoder.embed_tokens.weight"]
    held["decoder/scale_embeddings"] = np.asarray(0, np.int8)
    return held
