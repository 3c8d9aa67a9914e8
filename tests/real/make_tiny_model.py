"""Write a very small Llama with random weights, its tokenizer and a chat template: `python make_tiny_model.py FOLDER`.

A real inference server must have something to serve where nothing may be downloaded. Nothing here needs more than the
standard library, because the formats are simple: safetensors is a JSON header and raw numbers, a tokenizer of bytes is
a list of 256 letters. Every number comes from one seed, so two machines make the same model.

It answers nonsense, which is enough: what is tested is who asks it and who stops it. Its nonsense is printable, since
only the rows of the output layer that stand for printable ASCII (and the end) are not zero.
"""

from __future__ import annotations

import json
import random
import struct
import sys
from pathlib import Path

HIDDEN, LAYERS, HEADS, KV_HEADS, HEAD_DIM, INNER = 64, 2, 2, 1, 32, 128
CONTEXT = 16384
SPECIAL = ["<|begin|>", "<|end|>", "<|pad|>", "<|system|>", "<|user|>", "<|assistant|>"]
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def letters() -> list[str]:
    """One printable character for each byte, as byte-level BPE has it: Latin-1 itself where it is visible, else from 256 on."""
    visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = iter(range(256, 512))
    return [chr(byte) if byte in visible else chr(next(hidden)) for byte in range(256)]


def tokenizer() -> dict[str, object]:
    vocabulary = {word: n for n, word in enumerate([*SPECIAL, *letters()])}
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": n, "content": word, **plain} for n, word in enumerate(SPECIAL)],
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": vocabulary,
            "merges": [],
        },
    }


def shapes(words: int) -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (words, HIDDEN),
        "lm_head.weight": (words, HIDDEN),
        "model.norm.weight": (HIDDEN,),
    }
    for n in range(LAYERS):
        layer = {
            "input_layernorm": (HIDDEN,),
            "post_attention_layernorm": (HIDDEN,),
            "self_attn.q_proj": (HEADS * HEAD_DIM, HIDDEN),
            "self_attn.k_proj": (KV_HEADS * HEAD_DIM, HIDDEN),
            "self_attn.v_proj": (KV_HEADS * HEAD_DIM, HIDDEN),
            "self_attn.o_proj": (HIDDEN, HEADS * HEAD_DIM),
            "mlp.gate_proj": (INNER, HIDDEN),
            "mlp.up_proj": (INNER, HIDDEN),
            "mlp.down_proj": (HIDDEN, INNER),
        }
        found |= {f"model.layers.{n}.{name}.weight": shape for name, shape in layer.items()}
    return found


def weights(words: int) -> bytes:
    """The safetensors file: the length of the header, the header, the numbers."""
    dice, header, body = random.Random(0), {}, bytearray()
    spoken = {len(SPECIAL) + byte for byte in range(32, 127)} | {SPECIAL.index("<|end|>")}
    for name, shape in shapes(words).items():
        rows, width = (shape[0], shape[1]) if len(shape) == 2 else (1, shape[0])
        begin = len(body)
        for row in range(rows):
            if len(shape) == 1:
                numbers = [1.0] * width
            elif name == "lm_head.weight" and row not in spoken:
                numbers = [0.0] * width
            else:
                numbers = [dice.gauss(0.0, 0.3) for _ in range(width)]
            body += struct.pack(f"<{width}f", *numbers)
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [begin, len(body)]}
    text = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + bytes(body)


def make(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    spoken = tokenizer()
    words = len(SPECIAL) + 256
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": words,
        "hidden_size": HIDDEN,
        "intermediate_size": INNER,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "head_dim": HEAD_DIM,
        "max_position_embeddings": CONTEXT,
        "rms_norm_eps": 1e-5,
        "hidden_act": "silu",
        "tie_word_embeddings": False,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": 2,
        "torch_dtype": "float32",
    }
    names = {"bos_token": SPECIAL[0], "eos_token": SPECIAL[1], "pad_token": SPECIAL[2]}
    documents = {
        "config.json": config,
        "generation_config.json": {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2},
        "tokenizer.json": spoken,
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": CONTEXT,
            "clean_up_tokenization_spaces": False,
            "chat_template": TEMPLATE,
            **names,
        },
        "special_tokens_map.json": names,
    }
    for name, document in documents.items():
        (folder / name).write_text(json.dumps(document, ensure_ascii=False), encoding="utf-8")
    (folder / "model.safetensors").write_bytes(weights(words))


if __name__ == "__main__":
    make(Path(sys.argv[1]))
