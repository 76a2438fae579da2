"""Metrics: pure functions on per-item scores, and the aggregates a log of them allows."""

from eval.metrics.aggregate import aggregate
from eval.metrics.info import METRICS_INFO, MetricInfo
from eval.metrics.recompute import recompute

__all__ = ["METRICS_INFO", "MetricInfo", "aggregate", "recompute"]
