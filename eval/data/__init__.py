"""Benchmarks, and how examples become batches."""

from eval.data.benchmark import Benchmark
from eval.data.registry import BENCHMARKS, load_benchmark
from eval.types import Example, Message

__all__ = ["BENCHMARKS", "Benchmark", "Example", "Message", "load_benchmark"]
