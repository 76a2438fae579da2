"""Writes to a store until it is killed: each change is announced once it is acknowledged (see test_crash.py)."""

import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np

from guard.config import GuardSettings
from guard.persistence import load_store, locked_store, save_store
from guard.store import Entry, Store

DIMENSION = 16


def unit_vectors(num: int, seed: int) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((num, DIMENSION)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def put(store: Store, request: str, num: int = 3) -> None:
    first = store.next_id
    entries = [
        Entry(id=first + i, request=request, question=f"{request} {i}?", answer="x", group=request)
        for i in range(num)
    ]
    store.add(entries, unit_vectors(num, first), unit_vectors(num, first + 1))


def main(folder: Path, start: int) -> None:
    extra = {"settings": asdict(GuardSettings())}
    load_store(folder, str.isalpha)  # everything is imported before the first change
    number = start
    while True:
        with locked_store(folder):
            store, _ = load_store(folder, str.isalpha)
            if number % 3 == 2:
                victim = next(iter(store.requests))
                print(f"removing {victim}", flush=True)
                store.remove(victim)
                save_store(store, folder, extra)
                print(f"removed {victim}", flush=True)
            else:
                print(f"adding r{number}", flush=True)
                put(store, f"r{number}")
                save_store(store, folder, extra)
                print(f"added r{number}", flush=True)
        number += 1


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
