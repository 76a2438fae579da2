import threading
import time

import pytest

from guard.batching import Batcher


def test_threads_that_wait_together_are_answered_together():
    batches = []
    gate = threading.Event()

    def work(items):
        batches.append(list(items))
        if len(batches) == 1:
            gate.wait(5)
        return [item * 10 for item in items]

    batcher = Batcher(work)
    results = {}

    def call(k):
        results[k] = batcher([k, k + 100])

    threads = [threading.Thread(target=call, args=(0,))]
    threads[0].start()
    while not batches:
        time.sleep(0.001)
    threads += [threading.Thread(target=call, args=(k,)) for k in range(1, 16)]
    for thread in threads[1:]:
        thread.start()
    while len(batcher._waiting) < 15:
        time.sleep(0.001)
    gate.set()
    for thread in threads:
        thread.join()
    assert len(batches) == 2, "fifteen calls that waited are one batch"
    assert results == {k: [10 * k, 10 * k + 1000] for k in range(16)}


def test_an_error_reaches_whom_it_concerns_and_the_next_call_works():
    def work(items):
        if "bad" in items:
            raise ValueError("bad")
        return items

    batcher = Batcher(work)
    with pytest.raises(ValueError, match="bad"):
        batcher(["bad"])
    assert batcher(["good"]) == ["good"]
