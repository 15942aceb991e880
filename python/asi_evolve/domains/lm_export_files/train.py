"""Trains the model as the campaign did: its architecture, its training algorithm, its data pipeline, on your text.

    python train.py --data FILE.jsonl [--steps N] [--held-out FILE.jsonl] [--out model.pt] [--huggingface]
    torchrun --nproc-per-node 8 train.py --data FILE.jsonl --device cuda --dtype bfloat16

The training algorithm is training/__init__.py with the parameters of training/spec.json and the loss of
training/loss.py; the model is the package model/ with the parameters of model/params.json.
"""

import argparse
import json
import math
import os
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
if str(HERE) not in sys.path:
    sys.path.insert(0, str(HERE))

import data  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from model import build  # noqa: E402
from training import Spread, train  # noqa: E402
from training.loss import auxiliary_loss  # noqa: E402


def load_json(path):
    """A JSON file beside this one."""
    return json.loads((HERE / path).read_text(encoding="utf-8"))


PARAMS, SPEC, SETTINGS = load_json("model/params.json"), load_json("training/spec.json"), load_json("settings.json")
LENGTH = SETTINGS["sequence_length"]


def fit(windows, seed=0, on_step=None, spread=None):
    """A model trained on windows of bytes, uint8 (count, LENGTH + 1), in their order; on the CPU when it is done."""
    torch.manual_seed(seed)
    model = build(dict(PARAMS), windows.shape[1] - 1)
    torch.manual_seed(seed)
    train(model, torch.from_numpy(windows), SPEC, auxiliary_loss, on_step, spread)
    return model.cpu()


def spread_of(device, dtype, accumulate):
    """How a step is spread: over the processes that torchrun has started, if any."""
    size, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    if device == "cuda":
        device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
        torch.cuda.set_device(device)
    if size == 1:
        return Spread(device, dtype, accumulate)
    torch.distributed.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    return Spread(device, dtype, accumulate, rank, size, torch.distributed.all_reduce)


@torch.no_grad()
def bits_per_byte(model, windows):
    """Mean bits per byte of the last LENGTH bytes of each window."""
    model.eval()
    total = 0.0
    for batch in torch.from_numpy(windows).long().split(32):
        logits = model(batch[:, :-1])
        total += float(torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten(), reduction="sum"))
    return total / math.log(2) / (len(windows) * (windows.shape[1] - 1))


def save_pretrained(model, tokens):
    """Writes the weights into huggingface/, whose code then loads them; needs transformers.

    Args:
        model: as :func:`fit` returns it.
        tokens: int64 (batch, n), a text on which decoding with a state is compared with reading everything.

    Returns:
        Whether decoding goes on from a state.
    """
    from huggingface.configuration_evolved import EvolvedConfig
    from huggingface.decoding import agrees
    from huggingface.modeling_evolved import EvolvedForCausalLM

    config = EvolvedConfig.from_pretrained(HERE / "huggingface")
    other = EvolvedForCausalLM(config).eval()
    other.model.load_state_dict({**dict(model.named_buffers()), **model.state_dict()})
    other.config.resume = agrees(other.model, tokens)
    other.save_pretrained(HERE / "huggingface")
    return other.config.resume


def consecutive(pool, limit):
    """Windows that follow each other through a pool: uint8 (count, LENGTH + 1)."""
    count = min(limit, (len(pool.text) - 1) // LENGTH)
    if count < 1:
        raise ValueError(f"{len(pool.text)} bytes are too few for one window of {LENGTH}")
    starts = np.linspace(0, len(pool.text) - LENGTH - 1, count).astype(np.int64)
    return pool.text[starts[:, None] + np.arange(LENGTH + 1)]


def main():
    """The command line."""
    parser = argparse.ArgumentParser(description="Train the exported model.")
    parser.add_argument("--data", required=True, help="JSON Lines with text and, if you like, source")
    parser.add_argument("--held-out", help="JSON Lines to measure bits per byte on")
    parser.add_argument("--steps", type=int, help="optimiser steps (default: the campaign's full stage)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=SETTINGS["threads"])
    parser.add_argument("--out", default="model.pt", help="where the weights go")
    parser.add_argument("--huggingface", action="store_true", help="also write weights into huggingface/")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="float32", help="by autocast")
    parser.add_argument("--accumulate", type=int, default=1, help="parts of a batch taken one after the other")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    count = arguments.steps * SPEC["batch_size"] if arguments.steps else SETTINGS["windows"]
    try:
        pool = data.read(arguments.data)
        selection = data.curate(pool)
        held_out = consecutive(data.read(arguments.held_out), 256) if arguments.held_out else None
    except (OSError, ValueError) as error:
        sys.exit(f"train.py: {error}")
    spread = spread_of(arguments.device, arguments.dtype, arguments.accumulate)
    first = spread.rank == 0
    if first:
        print(data.describe(pool, selection))
    windows = data.windows(pool, selection, count, LENGTH, seed=arguments.seed, data_seed=SETTINGS["data_seed"])

    def on_step(step, steps, loss):
        if first and (step in (1, steps) or step % max(1, steps // 20) == 0):
            print(f"step {step} of {steps}: loss {loss / math.log(2):.4f} bits per byte", flush=True)

    model = fit(windows, arguments.seed, on_step, spread)
    if spread.size > 1:
        torch.distributed.destroy_process_group()
    if not first:
        return
    torch.save(model.state_dict(), arguments.out)
    print(f"weights: {arguments.out}")
    if arguments.huggingface:
        goes_on = save_pretrained(model, torch.from_numpy(windows[:2, :-1]).long())
        print(
            f"Hugging Face: {HERE / 'huggingface'}, decoding {'with a state' if goes_on else 'reads everything again'}"
        )
    if held_out is not None:
        print(f"held-out: {bits_per_byte(model, held_out):.4f} bits per byte")


if __name__ == "__main__":
    main()
