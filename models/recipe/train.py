"""Train a small Whisper (OpenAI's architecture and English tokenizer) on what synthesize.py wrote.

    python train.py --data WORK --out WORK/model.pt [--steps 10000] [--seed 1] [--processes 2]

Stopped, it resumes from --out: every step draws from its own number, so that a resumed run equals an unbroken one.

Two things let so small a run suffice: a connectionist temporal classification loss (Graves et al. 2006) on the
encoder's output, from which the alignment emerges (it is dropped at export); and a softmax that is exact over the whole
vocabulary at the cost of the used part, as all unused tokens share one embedding row. And at the first token of a word
a small part of the probability belongs to the timestamps, where whisper.cpp reads word times: which one it is, where
the time is known, is a loss of its own, as within so small a part the usual one teaches next to nothing.

Now and then a voice is garbled until nobody could understand it. Of such speech the model learns only that it goes on,
and where it ends: or it would end wherever a new voice is hard to understand, and lose the rest of the sentence.
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
import torch.nn.functional as F  # noqa: N812 - as PyTorch calls it
from features import Mel, hide
from sentences import VOCABULARY
from targets import (
    ANYWHEN,
    EOT,
    IGNORE,
    NO_SPEECH,
    NO_TIMESTAMPS,
    POSITION,
    POSITIONS,
    PREV,
    SOT,
    TIME0,
    TOKENIZER,
    UNTIMED,
    Targets,
)
from torch import Tensor, nn
from whisper.model import ModelDimensions, Whisper, disable_sdpa
from windows import Corpus, silent, spoken

TOKENS = 51864
WIDTH, ENCODER_LAYERS, DECODER_LAYERS = 128, 4, 3  # not 2 in the decoder: whisper.cpp then forces no timestamps
TIME_SHARE = 0.02  # of the likeliest word's probability, for timestamps; whisper.cpp heeds them from 0.01 on
CLEARLY = 30  # times likelier is the likeliest word, while there are words, than an end of any kind
GARBLED_SHARE = 0.25  # of the windows with speech


class Trainee(nn.Module):
    """The model under training, with embeddings for the tokens that are used and one row for all others."""

    def __init__(self) -> None:
        super().__init__()
        heads = WIDTH // 64
        self.dims = ModelDimensions(
            80, POSITIONS, WIDTH, heads, ENCODER_LAYERS, TOKENS, 448, WIDTH, heads, DECODER_LAYERS
        )
        self.model = Whisper(self.dims)
        del self.model.decoder.token_embedding
        nn.init.normal_(self.model.decoder.positional_embedding, std=0.01)
        text = sorted({token for word in VOCABULARY for token in TOKENIZER.encode(" " + word)})
        self.used = [*text, SOT, EOT, PREV, NO_SPEECH, NO_TIMESTAMPS, *range(TIME0, TIME0 + POSITIONS + 1)]
        self.index = {token: k for k, token in enumerate(self.used)}
        self.embedding = nn.Parameter(torch.randn(len(self.used), WIDTH) * 0.02)
        self.other = nn.Parameter(torch.randn(WIDTH) * 0.02)
        self.alignment = nn.Linear(WIDTH, len(text) + 1)

    def encode(self, mel: Tensor) -> Tensor:
        encoder = self.model.encoder
        x = F.gelu(encoder.conv2(F.gelu(encoder.conv1(mel)))).permute(0, 2, 1)
        x = x + encoder.positional_embedding[: x.shape[1]]
        for block in encoder.blocks:
            x = block(x)
        return encoder.ln_post(x)

    def decode(self, inputs: Tensor, audio: Tensor) -> Tensor:
        decoder = self.model.decoder
        x = self.embedding[inputs] + decoder.positional_embedding[: inputs.shape[1]]
        for block in decoder.blocks:
            x = block(x, audio, mask=decoder.mask)
        return decoder.ln(x)

    def logits(self, x: Tensor) -> Tensor:
        """Return those of the used tokens and, last, the log of all others' sum."""
        rest = (x @ self.other)[..., None] + math.log(TOKENS - len(self.used))
        return torch.cat([x @ self.embedding.T, rest], -1)

    def entropy(self, logits: Tensor, batch: list[Targets]) -> Tensor:
        """Mean cross entropy of a batch's targets."""
        shape = logits.shape[:2]
        targets, times = torch.full(shape, IGNORE), torch.full(shape, -1)
        anywhen, untimed, garbled = torch.zeros(3, *shape, dtype=torch.bool)
        for k, one in enumerate(batch):
            garbled[k] = one.garbled
            for j, (target, stamp) in enumerate(zip(one.targets, one.times, strict=True)):
                targets[k, j] = self.index.get(target, IGNORE)
                anywhen[k, j], untimed[k, j] = stamp == ANYWHEN, stamp == UNTIMED
                times[k, j] = self.index.get(stamp, -1)
        stamps = slice(self.index[TIME0], len(self.used))
        logits = logits.clone()
        logits[:, :, stamps] = logits[:, :, stamps].masked_fill(untimed[..., None], -1e4)
        logs = logits.log_softmax(-1)
        right = logs.gather(-1, targets.clamp(min=0)[..., None])[..., 0]
        stamped = logs[:, :, stamps].logsumexp(-1)  # of all timestamps together
        likeliest = logs[:, :, : self.index[SOT]].amax(-1)
        known = times >= 0
        when = stamped - logs.gather(-1, times.clamp(min=0)[..., None])[..., 0]
        faint = (likeliest.detach() + math.log(TIME_SHARE) - stamped).relu()
        # whisper.cpp ends the text where all timestamps together outweigh the likeliest word: never amid speech.
        early = (torch.logaddexp(stamped, logs[:, :, self.index[EOT]]) + math.log(CLEARLY) - likeliest).relu()
        loss = torch.where(known, 0.2 * when, 0.0) + torch.where(known | anywhen, 0.3 * faint, 0.0) - right
        word = targets < self.index[SOT]
        loss = torch.where(word & garbled, early, loss + torch.where(word, 0.5 * early, 0.0))
        trained = targets >= 0
        return loss[trained].mean()

    def alignment_loss(self, audio: Tensor, batch: list[Targets]) -> Tensor:
        """Connectionist temporal classification, a token of what can be understood."""
        lengths = torch.tensor([len(one.text) for one in batch])
        labels = torch.tensor([self.index[token] + 1 for one in batch for token in one.text])
        logs = self.alignment(audio).log_softmax(-1).transpose(0, 1)
        positions = torch.full((len(batch),), audio.shape[1])
        loss = F.ctc_loss(logs, labels, positions, lengths, zero_infinity=True, reduction="none")
        understood = torch.tensor([not one.garbled for one in batch])
        return loss[understood].sum() / max(1, int(lengths[understood].sum()))


def shape(progress: float, r: Random, processes: int) -> tuple[int, int]:
    """Encoder positions and each process's share of the batch: from words to sentences, then longer contexts.

    A short context holds more speech for the same computation.
    """
    if progress < 0.05:
        positions = 96
    elif progress < 0.15:
        positions = r.choice([96, 176])
    else:
        kinds = [(100, 192), (256, 256), (193, 384), (512, 512), (385, 640), (POSITIONS, POSITIONS)]
        weights = [45, 25, 15, 10, 4, 1] if progress < 0.5 else [20, 30, 21, 18, 8, 3]
        positions = r.randint(*r.choices(kinds, weights)[0])
    return positions, max(2, round(5500 / positions / processes))


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
        matrices, others = [], []
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
    """Learning rate: a short warm-up, then half a cosine."""
    return 2e-3 * min(1, (number + 1) / 300) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * progress)))


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
        progress = number / options.steps
        positions, size = shape(progress, Random(f"{options.seed} {number}"), options.processes)
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
    parser.add_argument("--steps", type=int, default=10000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--save-every", type=int, default=100, help="steps that a stop may cost")
    parser.add_argument("--processes", type=int, default=2, help="one a core; another number gives another model")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        meeting = f"{folder}/meeting"
        # When this one ends, however it ends, the others fail in their next exchange.
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
