"""client.py TAP_FILE - the official Python client against running daemons.

Runs in a virtual environment that has the package `openai`. The daemons come in the environment:
GEMMAD_URL (plain), GEMMAD_KEYED_URL (wants the key in GEMMAD_KEY), GEMMAD_TIGHT_URL (one sequence,
queue of one), GEMMAD_EMBED_URL (a small EmbeddingGemma)."""

import json
import os
import pathlib
import re
import sys
import threading
import time
import traceback
import urllib.request

import openai

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "tools"))
from daemon import Tap

URL, KEYED, TIGHT = (os.environ[k] for k in ("GEMMAD_URL", "GEMMAD_KEYED_URL", "GEMMAD_TIGHT_URL"))
HELLO = [{"role": "user", "content": "Hello!"}]
STORY = [{"role": "user", "content": "Tell me a story."}]


def connect(url, key="none", **kw):
    return openai.OpenAI(base_url=url + "/v1", api_key=key, max_retries=0, timeout=60, **kw)


client = connect(URL)
MODEL = client.models.list().data[0].id


def raises(kind, call):
    """The exception, which must be exactly of this class."""
    try:
        call()
    except openai.OpenAIError as e:
        assert type(e) is kind, f"{type(e).__name__} instead of {kind.__name__}: {e}"
        return e
    raise AssertionError(f"no {kind.__name__}")


def chat(**kw):
    kw = {"model": MODEL, "messages": HELLO, "temperature": 0, "max_completion_tokens": 24} | kw
    return client.chat.completions.create(**kw)


def complete(**kw):
    kw = {"model": MODEL, "prompt": "Once upon a time", "temperature": 0, "max_tokens": 16} | kw
    return client.completions.create(**kw)


def metric(url, name):
    text = urllib.request.urlopen(url + "/metrics").read().decode()
    return float(re.search(rf"^{re.escape(name)} (\S+)$", text, re.M).group(1))


def wait_until_idle(url, limit=10):
    end = time.monotonic() + limit
    while metric(url, "gemmad_requests_running") + metric(url, "gemmad_requests_waiting") > 0:
        assert time.monotonic() < end, "a sequence is still held"
        time.sleep(0.02)


def in_parallel(call, n):
    threads = [threading.Thread(target=call) for _ in range(n)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()


def test_models_are_listed_and_retrieved():
    models = client.models.list()
    assert models.object == "list" and len(models.data) >= 1
    one = client.models.retrieve(MODEL)
    assert one.id == MODEL and one.object == "model" and one.created > 0 and one.owned_by


def test_chat():
    r = chat()
    assert r.object == "chat.completion" and r.id.startswith("chatcmpl-") and r.model == MODEL
    assert abs(r.created - time.time()) < 600
    (choice,) = r.choices
    assert choice.index == 0 and choice.finish_reason in ("stop", "length")
    assert choice.message.role == "assistant" and choice.message.content.strip()
    assert choice.message.refusal is None and not choice.message.tool_calls
    u = r.usage
    assert u.prompt_tokens > 0 and u.completion_tokens > 0
    assert u.total_tokens == u.prompt_tokens + u.completion_tokens


def test_chat_streamed_equals_chat():
    whole = chat()
    chunks = list(chat(stream=True, stream_options={"include_usage": True}))
    assert all(c.object == "chat.completion.chunk" for c in chunks)
    assert len({(c.id, c.created) for c in chunks}) == 1
    assert chunks[0].choices[0].delta.role == "assistant"
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == whole.choices[0].message.content
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == \
        whole.choices[0].finish_reason
    assert chunks[-1].choices == [] and chunks[-1].usage.total_tokens == whole.usage.total_tokens
    assert all(c.usage is None for c in chunks[:-1])


def test_completion():
    r = complete()
    assert r.object == "text_completion" and r.id.startswith("cmpl-")
    (choice,) = r.choices
    assert choice.text and choice.finish_reason in ("stop", "length") and choice.logprobs is None
    assert 0 < r.usage.completion_tokens <= 16


def test_completion_streamed_equals_completion():
    whole = complete().choices[0]
    chunks = list(complete(stream=True))
    assert "".join(c.choices[0].text for c in chunks) == whole.text
    assert chunks[-1].choices[0].finish_reason == whole.finish_reason
    assert all(c.usage is None for c in chunks)


def test_several_prompts_and_choices_keep_their_order():
    prompts = ["Once upon a time", "The king", "A small cat"]
    alone = [complete(prompt=p).choices[0].text for p in prompts]
    r = complete(prompt=prompts, n=2)
    assert [c.index for c in r.choices] == list(range(6))
    assert [c.text for c in r.choices] == [t for t in alone for _ in range(2)]


def test_prompts_may_be_token_ids():
    body = json.dumps({"content": "Once upon a time", "add_special": True}).encode()
    request = urllib.request.Request(URL + "/tokenize", body, {"Content-Type": "application/json"})
    ids = json.load(urllib.request.urlopen(request))["tokens"]
    text = complete().choices[0].text
    assert complete(prompt=ids).choices[0].text == text
    assert [c.text for c in complete(prompt=[ids, ids]).choices] == [text, text]


def test_echo_repeats_the_prompt():
    assert complete(echo=True).choices[0].text == "Once upon a time" + complete().choices[0].text


def test_n_choices_of_a_chat():
    r = chat(n=3, temperature=1, seed=5, messages=STORY)
    assert [c.index for c in r.choices] == [0, 1, 2]
    assert len({c.message.content for c in r.choices}) > 1
    chunks = list(chat(n=3, temperature=1, seed=5, messages=STORY, stream=True))
    for i in range(3):
        text = "".join(c.choices[0].delta.content or "" for c in chunks
                       if c.choices and c.choices[0].index == i)
        assert text == r.choices[i].message.content


def test_a_seed_repeats_and_another_differs():
    def one(seed):
        return chat(temperature=1, seed=seed, messages=STORY).choices[0].message.content

    assert one(7) == one(7)
    assert len({one(s) for s in range(5)}) > 1


def test_a_stop_string_ends_the_text_before_it():
    text = chat(messages=STORY, max_completion_tokens=60).choices[0].message.content
    stop = text[len(text) // 2:][:6]
    r = chat(messages=STORY, max_completion_tokens=60, stop=[stop]).choices[0]
    assert r.message.content == text[:text.index(stop)] and r.finish_reason == "stop"
    chunks = chat(messages=STORY, max_completion_tokens=60, stop=stop, stream=True)
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == r.message.content


def test_the_token_limit_ends_with_length():
    r = chat(messages=STORY, max_completion_tokens=5)
    assert r.choices[0].finish_reason == "length" and r.usage.completion_tokens == 5
    r = chat(messages=STORY, max_completion_tokens=None, max_tokens=6)
    assert r.usage.completion_tokens == 6


def test_chat_logprobs():
    r = chat(logprobs=True, top_logprobs=3)
    tokens = r.choices[0].logprobs.content
    assert len(tokens) in (r.usage.completion_tokens, r.usage.completion_tokens - 1)
    assert b"".join(bytes(t.bytes) for t in tokens).decode().startswith(
        r.choices[0].message.content)
    for t in tokens:
        assert t.logprob <= 0 and len(t.top_logprobs) == 3
        best = [x.logprob for x in t.top_logprobs]
        assert best == sorted(best, reverse=True)
        assert t.token == t.top_logprobs[0].token and t.logprob == best[0]  # greedy
    streamed = [t for c in chat(logprobs=True, top_logprobs=3, stream=True)
                if c.choices and c.choices[0].logprobs for t in c.choices[0].logprobs.content]
    assert [t.token for t in streamed] == [t.token for t in tokens]
    assert chat().choices[0].logprobs is None


def test_completion_logprobs():
    r = complete(logprobs=2)
    l = r.choices[0].logprobs
    assert len(l.tokens) == len(l.token_logprobs) == len(l.top_logprobs) == len(l.text_offset)
    assert "".join(l.tokens).startswith(r.choices[0].text)
    assert all(p <= 0 for p in l.token_logprobs)
    assert all(1 <= len(t) <= 3 for t in l.top_logprobs)
    e = complete(logprobs=2, echo=True).choices[0].logprobs
    assert e.token_logprobs[0] is None and len(e.tokens) > len(l.tokens)


def test_bad_values_are_bad_requests():
    for name, bad in (("temperature", 9), ("top_p", -1), ("n", 0), ("max_completion_tokens", -5),
                      ("stop", ["a"] * 99), ("logit_bias", {"x": 1}), ("top_logprobs", 3)):
        e = raises(openai.BadRequestError, lambda: chat(**{name: bad}))
        assert e.status_code == 400 and e.type == "invalid_request_error", e
        assert e.param and e.param.startswith(name), f"{name}: param is {e.param}"
        assert name in e.message, e.message
    raises(openai.BadRequestError, lambda: chat(messages=[]))
    raises(openai.BadRequestError, lambda: chat(messages=[{"role": "wizard", "content": "x"}]))


def test_unsupported_parameters_are_named_not_swallowed():
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    for name, value in (("tools", [tool]), ("response_format", {"type": "json_object"})):
        e = raises(openai.BadRequestError, lambda: chat(**{name: value}))
        assert e.param.startswith(name), e.param
    e = raises(openai.BadRequestError, lambda: chat(messages=[{"role": "user", "content": [
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]}]))
    assert chat(tools=[], response_format={"type": "text"}).choices


def test_unknown_fields_are_named_in_a_header():
    r = client.chat.completions.with_raw_response.create(
        model=MODEL, messages=HELLO, max_completion_tokens=1, extra_body={"frobnicate": 1})
    assert "frobnicate" in r.headers["x-ignored-params"]


def test_a_too_long_prompt_is_refused_with_numbers():
    e = raises(openai.BadRequestError,
               lambda: chat(messages=[{"role": "user", "content": "word " * 20000}]))
    assert e.code == "context_length_exceeded" and re.search(r"\d{4,}", e.message), e.message


def test_an_unknown_model_is_not_found():
    e = raises(openai.NotFoundError, lambda: chat(model="gpt-17"))
    assert e.status_code == 404 and e.code == "model_not_found" and "gpt-17" in e.message
    raises(openai.NotFoundError, lambda: client.models.retrieve("gpt-17"))


def test_a_wrong_key_is_an_authentication_error():
    for key in ("wrong", "none"):
        e = raises(openai.AuthenticationError, lambda: connect(KEYED, key).models.list())
        assert e.status_code == 401 and e.code == "invalid_api_key"
    assert connect(KEYED, os.environ["GEMMAD_KEY"]).models.list().data[0].id == MODEL


def test_a_full_queue_is_an_internal_server_error_with_retry_after():
    # All at once: a stream begins with its first token, so a waiting one has not begun.
    tight = connect(TIGHT)
    refusals, others = [], []

    def ask():
        try:
            with tight.chat.completions.create(
                    model=MODEL, messages=STORY, stream=True, max_completion_tokens=1500,
                    extra_body={"ignore_eos": True}) as stream:
                others.append(next(stream))
        except openai.OpenAIError as e:
            refusals.append(e)

    in_parallel(ask, 6)
    assert others and refusals, f"{len(others)} of 6 answered, {len(refusals)} refused"
    for e in refusals:
        assert type(e) is openai.InternalServerError and e.status_code == 503, e
        assert int(e.response.headers["retry-after"]) >= 1
    wait_until_idle(TIGHT)


def test_a_client_retries_until_the_queue_has_room():
    patient = openai.OpenAI(base_url=TIGHT + "/v1", api_key="none", max_retries=8, timeout=60)
    results = []

    def ask():
        results.append(patient.chat.completions.create(
            model=MODEL, messages=HELLO, max_completion_tokens=16).choices[0].finish_reason)

    in_parallel(ask, 5)
    assert len(results) == 5, results


def test_an_abort_in_mid_stream_frees_the_sequence():
    stream = chat(messages=STORY, stream=True, max_completion_tokens=1800,
                  extra_body={"ignore_eos": True})
    for _ in range(3):
        next(stream)
    assert metric(URL, "gemmad_requests_running") >= 1
    before = metric(URL, "gemmad_jobs_canceled_total")
    stream.close()
    wait_until_idle(URL)
    assert metric(URL, "gemmad_jobs_canceled_total") == before + 1


def test_requests_in_parallel_equal_requests_alone():
    prompts = ["Hello!", "Who are you?", "Tell me a story.", "What is 2 + 3?", "Count to five.",
               "What is the capital of France?", "What is the opposite of hot?", "Bye."]

    def one(p):
        return chat(messages=[{"role": "user", "content": p}], temperature=0.9, seed=11,
                    max_completion_tokens=40).choices[0].message.content

    alone = [one(p) for p in prompts]
    together = [None] * len(prompts)

    numbers = iter(range(len(prompts)))

    def put():
        i = next(numbers)
        together[i] = one(prompts[i])

    in_parallel(put, len(prompts))
    assert together == alone


def embed(client, **kw):
    return client.embeddings.create(**{"model": client.models.list().data[0].id} | kw)


def test_embeddings():
    embeds = connect(os.environ["GEMMAD_EMBED_URL"])
    texts = ["a dog", "a cat", "a dog"]
    r = embed(embeds, input=texts)  # the client asks for base64 by itself
    assert r.object == "list" and [d.index for d in r.data] == [0, 1, 2]
    assert r.usage.prompt_tokens == r.usage.total_tokens > 0
    a, b, c = (d.embedding for d in r.data)
    assert a == c != b and abs(sum(x * x for x in a) - 1) < 1e-5
    floats = embed(embeds, input="a dog", encoding_format="float").data[0].embedding
    assert len(floats) == len(a) and all(abs(x - y) < 1e-7 for x, y in zip(a, floats))
    assert len(embed(embeds, input="a dog", dimensions=16).data[0].embedding) == 16
    assert len(embed(embeds, input=[[2, 7], [2, 8, 9]]).data) == 2
    raises(openai.BadRequestError, lambda: embed(embeds, input=""))
    raises(openai.BadRequestError, lambda: embed(client, input="a dog"))
    raises(openai.BadRequestError, lambda: embeds.completions.create(model=r.model, prompt="Hi"))


def main():
    tap = Tap(sys.argv[1])
    for name, test in list(globals().items()):
        if name.startswith("test_"):
            try:
                test()
                tap.result(True, name[5:].replace("_", " "))
            except Exception:
                tap.result(False, name[5:].replace("_", " "), traceback.format_exc())
    sys.exit(tap.failed > 0)


main()
