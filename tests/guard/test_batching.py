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


def test_an_answered_call_does_not_wait_for_a_later_batch():
    starts = {name: threading.Event() for name in ("first", "second", "third")}
    holds = {name: threading.Event() for name in starts}

    def work(items):
        name = items[0]
        starts[name].set()
        assert holds[name].wait(10)
        return items

    batcher = Batcher(work)

    def call(name, count):
        threads = [threading.Thread(target=batcher, args=([name],)) for _ in range(count)]
        for thread in threads:
            thread.start()
        return threads

    first = call("first", 1)
    assert starts["first"].wait(10)
    second = call("second", 5)
    while len(batcher._waiting) < 5:
        time.sleep(0.001)
    holds["first"].set()
    assert starts["second"].wait(10)
    third = call("third", 1)
    while not batcher._waiting:
        time.sleep(0.001)
    holds["second"].set()
    assert starts["third"].wait(10)
    for thread in first + second:
        thread.join(10)
        assert not thread.is_alive(), "waits although it is answered"
    holds["third"].set()
    third[0].join()


def test_many_threads_get_their_own_results():
    batcher, found = Batcher(lambda items: [item + 1 for item in items]), {}

    def ask(k):
        found[k] = [batcher([1000 * k + i]) for i in range(200)]

    threads = [threading.Thread(target=ask, args=(k,)) for k in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {k: [[1000 * k + i + 1] for i in range(200)] for k in range(16)}
