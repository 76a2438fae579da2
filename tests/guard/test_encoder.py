import threading
from itertools import pairwise

import numpy as np

from guard.encoder import DEFAULT_ENCODER, SentenceEncoder, get_encoder


def test_the_default_is_the_packaged_model_with_the_known_hash():
    encoder = get_encoder()
    assert (
        encoder.identity
        == f"{DEFAULT_ENCODER}@53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
    )
    assert encoder.dimension == 384


def test_vectors_are_normalised_and_a_text_has_one_vector_whatever_its_batch():
    encoder = get_encoder()
    texts = ["Where was she born?", "A much longer sentence about nothing in particular, to force padding."]
    together = encoder.encode(texts)
    assert np.allclose(np.linalg.norm(together, axis=1), 1.0, atol=1e-5)
    alone = SentenceEncoder()
    alone.__dict__["_model"] = encoder._model
    assert np.allclose(alone.encode(texts[:1])[0], together[0], atol=1e-5)


def test_a_long_prompt_is_cut_into_windows_that_overlap():
    encoder = get_encoder()
    text = " ".join(f"word{i}" for i in range(600))
    windows = encoder.windows(text)
    assert len(windows) > 2
    assert windows[0].startswith("word0 ")
    assert windows[-1].endswith("word599")
    for first, second in pairwise(windows):
        assert second.split()[1] in first.split()
    assert encoder.windows("short") == ["short"]


def test_sixteen_threads_get_the_same_vectors():
    encoder = SentenceEncoder()
    encoder.__dict__["_model"] = get_encoder()._model
    texts = [f"Who wrote book {i}?" for i in range(8)]
    expected = get_encoder().encode(texts)
    found, errors = {}, []

    def work(k):
        try:
            found[k] = encoder.encode([texts[k % 8]])[0]
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    for k, vector in found.items():
        assert np.allclose(vector, expected[k % 8], atol=1e-5)
