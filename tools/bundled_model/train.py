"""Trains a small Whisper (OpenAI's architecture and English tokenizer) on the data of synthesize.py.

    python train.py --data WORK --out WORK/model.pt [--steps 11000] [--seed 1] [--processes 2]

After a stop it resumes from --out. Every step draws from its own number, so a resumed run equals an unbroken one.

Some voices are garbled until they are unintelligible. From such speech the model learns only that it goes on, and
where it ends. Otherwise it would end at any new voice that is hard to understand, and lose the rest of the sentence.

The last eleventh of the steps is for whisper.cpp's flash attention. It pads the encoder's positions to a multiple of
256 (1,536 for 1,500) with keys and values of zero, and does not mask them. A model that was not trained with the
padding attends to it. Half of these steps pad as whisper.cpp would, and a quarter have the full context.
"""

from __future__ import annotations

import argparse
import math
import os
import tempfile
import time
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from features import Mel, hide
from targets import EOT, POSITION, POSITIONS, Targets
from torch import Tensor, nn
from trainee import Trainee
from whisper.model import disable_sdpa
from windows import Corpus, silent, spoken

GARBLED_SHARE = 0.25  # of the windows with speech
PADDED_SHARE = 1 / 11  # of the steps, the last ones
PADDED_TO = 256  # whisper.cpp's GGML_PAD of encoder positions with flash attention


def shape(progress: float, r: Random, processes: int) -> tuple[int, int, int]:
    """Encoder positions, padding after them, each process's share of the batch.

    First words, then sentences, then longer contexts, because short ones hold more speech for the same computation.
    Past 1, padding.
    """
    if progress < 0.05:
        positions = 96
    elif progress < 0.15:
        positions = r.choice([96, 176])
    else:
        kinds = [(100, 192), (256, 256), (193, 384), (512, 512), (385, 640), (POSITIONS, POSITIONS)]
        early, late, padded = [45, 25, 15, 10, 4, 1], [20, 30, 21, 18, 8, 3], [15, 15, 15, 15, 15, 25]
        weights = early if progress < 0.5 else late if progress < 1 else padded
        positions = r.randint(*r.choices(kinds, weights)[0])
    padding = -positions % PADDED_TO if progress >= 1 and r.random() < 0.5 else 0
    return positions, padding, max(2, round(5500 / positions / processes))


def batch_of(corpus: Corpus, mel: Mel, positions: int, size: int, r: Random) -> tuple[Tensor, list[Targets]]:
    """Features (batch, 80, frames) and targets."""
    g = np.random.default_rng(r.getrandbits(64))
    samples = positions * POSITION
    windows = [silent(samples, r, g) if r.random() < 0.08 else spoken(corpus, samples, r, g) for _ in range(size)]
    garbled = [window.speech is not None and r.random() < GARBLED_SHARE for window in windows]
    features = mel(torch.from_numpy(np.stack([w.samples for w in windows])), garbled, r)
    for feature in features:
        hide(feature, r)
    return features, [Targets(window, r, garbled=g) for window, g in zip(windows, garbled, strict=True)]


def losses_of(trainee: Trainee, features: Tensor, batch: list[Targets]) -> tuple[Tensor, Tensor]:
    """Cross entropy and alignment loss of one batch."""
    inputs = torch.full((len(batch), max(len(one.inputs) for one in batch)), trainee.index[EOT])
    for k, one in enumerate(batch):
        inputs[k, : len(one.inputs)] = torch.tensor([trainee.index[token] for token in one.inputs])
    with disable_sdpa():  # its backward pass is slow on CPUs
        audio = trainee.encode(features)
        decoded = trainee.decode(inputs, audio)
    return trainee.entropy(trainee.logits(decoded), batch), trainee.alignment_loss(audio, batch)


class Optimizer:
    """Muon for the matrices of the blocks, AdamW for all else.

    Muon (Jordan et al. 2024) makes a step equally long in every direction of a matrix; scaled to the root mean square
    of AdamW's (Liu et al. 2025), both take one learning rate.
    """

    def __init__(self, trainee: Trainee) -> None:
        matrices: list[torch.nn.Parameter] = []
        others: list[torch.nn.Parameter] = []
        for name, parameter in trainee.named_parameters():
            (matrices if ".blocks." in name and parameter.ndim == 2 else others).append(parameter)
        self._parts: tuple[torch.optim.Optimizer, ...] = (
            torch.optim.Muon(matrices, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(others, betas=(0.9, 0.98), weight_decay=0.01),
        )

    def step(self, rate: float) -> None:
        for part in self._parts:
            part.param_groups[0]["lr"] = rate
            part.step()

    def zero_grad(self) -> None:
        for part in self._parts:
            part.zero_grad()

    def state_dict(self) -> list[dict[str, Any]]:
        return [part.state_dict() for part in self._parts]

    def load_state_dict(self, states: list[dict[str, Any]]) -> None:
        for part, state in zip(self._parts, states, strict=True):
            part.load_state_dict(state)


def rate(progress: float, number: int) -> float:
    """Learning rate: a short warm-up, then half a cosine. Past 1, with padding, a tenth of that again."""
    peak, done = (2e-3, progress) if progress < 1 else (2e-4, (progress - 1) * (1 / PADDED_SHARE - 1))
    return peak * min(1, (number + 1) / 300) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done)))


def run(rank: int, options: argparse.Namespace, meeting: str) -> None:
    """One of the processes that share every batch and average their gradients."""
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=options.processes)
    torch.set_num_threads(1)
    torch.manual_seed(options.seed)
    trainee, mel, corpus = Trainee(), Mel(), Corpus(options.data)
    parameters = list(trainee.parameters())
    optimizer = Optimizer(trainee)
    first, seconds = resume(options.out, trainee, optimizer)
    begin, losses = time.monotonic(), []
    for number in range(first, options.steps):
        progress = number / round(options.steps * (1 - PADDED_SHARE))
        positions, trainee.padding, size = shape(progress, Random(f"{options.seed} {number}"), options.processes)
        features, batch = batch_of(corpus, mel, positions, size, Random(f"{options.seed} {number} {rank}"))
        entropy, alignment = losses_of(trainee, features, batch)
        optimizer.zero_grad()
        (entropy + (1.0 if progress < 0.5 else 0.3) * alignment).backward()
        gradients = nn.utils.parameters_to_vector([p.grad for p in parameters])
        dist.all_reduce(gradients)
        for p, g in zip(parameters, gradients.split([p.numel() for p in parameters]), strict=True):
            p.grad = g.view_as(p) / options.processes
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step(rate(progress, number))
        losses.append((entropy.item(), alignment.item()))
        if rank == 0 and ((number + 1) % options.save_every == 0 or number + 1 == options.steps):
            spent = seconds + time.monotonic() - begin
            save(options.out, trainee, optimizer, number + 1, spent)
            e, a = np.mean(losses, 0)
            print(f"step {number + 1}, {spent / 60:.1f} min: cross entropy {e:.3f}, alignment {a:.3f}", flush=True)
            losses = []
    dist.destroy_process_group()


def follow(number: int, options: argparse.Namespace, meeting: str) -> None:
    run(number + 1, options, meeting)


def main() -> None:
    parser = argparse.ArgumentParser(description="Train a small Whisper.")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=11000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--save-every", type=int, default=100, help="most steps that a stop can lose")
    parser.add_argument("--processes", type=int, default=2, help="one per core; another number gives another model")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        meeting = f"{folder}/meeting"
        # When this process ends for any reason, the others fail at their next exchange of gradients.
        mp.start_processes(follow, (options, meeting), options.processes - 1, start_method="spawn", join=False)
        run(0, options, meeting)


def resume(path: Path, trainee: Trainee, optimizer: Optimizer) -> tuple[int, float]:
    """Steps done and seconds spent so far."""
    if not path.exists():
        return 0, 0.0
    saved = torch.load(path, weights_only=False)
    trainee.load_state_dict(saved["trainee"])
    optimizer.load_state_dict(saved["optimizer"])
    return saved["step"], saved["seconds"]


def save(path: Path, trainee: Trainee, optimizer: Optimizer, number: int, seconds: float) -> None:
    state = {
        "dims": vars(trainee.dims),
        "used": trainee.used,
        "trainee": trainee.state_dict(),
        "optimizer": optimizer.state_dict(),
        "step": number,
        "seconds": seconds,
    }
    part = path.with_suffix(".part")
    torch.save(state, part)
    part.replace(path)


if __name__ == "__main__":
    main()
