"""Is a model with all rows of XLM-R's word embeddings slower than one with the rows that the latency table keeps?

Run as `python tests/bench/embedding_rows.py [ROUNDS]`: both models have the shape 4,12,576,768 and the same
layer weights, and run random ids alternately in eager PyTorch. Prints the ratio of the sums over all lengths: median, 5th and
95th percentile of the rounds.
"""

import random
import sys
from statistics import median

import numpy as np
import torch
from transformers import PreTrainedModel

from kdnas.latency.engines import TIMED_VOCABULARY, random_sentence
from kdnas.latency.timing import ModelMaker, sweep_ms
from kdnas.models.arch import Arch
from kdnas.models.teacher import SHAPE, load_config, resolve_shape
from kdnas.store.host import default_threads, host_line

LENGTHS = (8, 12, 16, 24, 32, 48)
SENTENCES = 20  # with different ids, so that their rows are not cached


def model_of(rows: int) -> tuple[PreTrainedModel, list[dict[str, torch.Tensor]]]:
    """A model with this number of embedding rows, and sentences for it."""
    config = load_config(resolve_shape(SHAPE).path)
    config.vocab_size = rows
    model = ModelMaker(config, 0).student(Arch(4, 12, 576, 768))
    sentences = [random_sentence(length, config, seed) for seed in range(SENTENCES) for length in LENGTHS]
    return model, [{name: torch.from_numpy(value) for name, value in item.items()} for item in sentences]


def main(rounds: int) -> None:
    """Time both models and print."""
    torch.set_num_threads(default_threads())
    print(host_line())
    both = [model_of(TIMED_VOCABULARY), model_of(250_002)]
    ratios = []
    with torch.inference_mode():
        for _ in range(rounds):
            took = [0.0, 0.0]
            for index in random.sample(range(len(both[0][1])), len(both[0][1])):
                for number in random.sample((0, 1), 2):
                    model, items = both[number]
                    took[number] += sum(sweep_ms(model, [items[index - 1], items[index]])[1:])
            ratios.append(took[1] / took[0])
    low, high = np.percentile(ratios, [5, 95])
    print(f"250,002 rows over {TIMED_VOCABULARY:,}: {median(ratios):.3f} [{low:.3f}, {high:.3f}] over {rounds} rounds")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20)
