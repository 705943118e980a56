"""`/v1/completions`: raw text and token ids, guarded like any prompt."""

import json

import pytest
from serving import CRUEL, HARMLESS, events

from guardrail.pipeline.request import request

PATH = "/v1/completions"


def rendered(guard, messages):
    """The text that the chat template makes of messages."""
    return guard.engine.decode(guard.engine.render(request("check", messages).messages).ids)


def body(prompt, **fields):
    return {"model": "demo", "prompt": prompt, "temperature": 0, "max_tokens": 8} | fields


async def test_the_rendered_prompt_as_text_or_ids_has_the_chats_reply(client, guard):
    reply = guard.chat(HARMLESS, temperature=0, max_tokens=8)
    text = rendered(guard, HARMLESS)
    ids = list(guard.engine.render(request("check", HARMLESS).messages).ids)
    for prompt in (text, [text], ids, [ids]):
        response = await client.post(PATH, json=body(prompt))
        assert response.status_code == 200, response.text
        (choice,) = response.json()["choices"]
        assert choice == {"index": 0, "text": reply.text, "logprobs": None, "finish_reason": reply.finish}
        assert response.json()["usage"]["prompt_tokens"] == len(ids)


async def test_every_prompt_has_its_own_decision(client, guard):
    prompts = [rendered(guard, messages) for messages in (HARMLESS, CRUEL)]
    response = await client.post(PATH, json=body(prompts, n=2, echo=True, guardrail={"decision": True}))
    *answered, refused, again = response.json()["choices"]
    # clients find the replies to a prompt by their places
    assert [choice["index"] for choice in (*answered, refused, again)] == [0, 1, 2, 3]
    assert again == {**refused, "index": 3}
    assert all(choice["text"].startswith(prompts[0]) for choice in answered)
    assert refused["text"] == prompts[1] + "I can't help with that."
    assert refused["finish_reason"] == "content_filter"
    assert refused["guardrail"]["action"] == response.headers["x-guardrail-action"] == "block"
    assert "raw text" in refused["guardrail"]["decisions"][0]["warnings"][0]


async def test_a_block_may_be_an_error(serving, guard):
    prompts = [rendered(guard, messages) for messages in (HARMLESS, CRUEL)]
    async with serving(blocks="error") as http:
        response = await http.post(PATH, json=body(prompts))
    assert (response.status_code, response.json()["error"]["code"]) == (400, "guardrail_blocked")


async def test_a_stream_has_the_same_text_and_logprobs(client, guard):
    given = body(rendered(guard, HARMLESS), logprobs=1, n=2, seed=1, temperature=1)
    (plain, other) = (await client.post(PATH, json=given)).json()["choices"]
    response = await client.post(PATH, json=given | {"stream": True})
    *chunks, done = events(response.text)
    assert done == "[DONE]"
    found = [choice for chunk in chunks for choice in json.loads(chunk)["choices"]]
    for expected in (plain, other):
        own = [choice for choice in found if choice["index"] == expected["index"]]
        assert "".join(choice["text"] for choice in own) == expected["text"]
        assert own[-1]["finish_reason"] == expected["finish_reason"]
        pieces = [choice["logprobs"] for choice in own if choice["logprobs"]]
        tokens = [token for piece in pieces for token in piece["tokens"]]
        assert tokens == expected["logprobs"]["tokens"][: len(tokens)]
        assert all(len(top) == 1 for top in expected["logprobs"]["top_logprobs"])


@pytest.mark.parametrize(
    ("given", "param", "says"),
    [
        (body(5), "prompt", "expected a string or an array"),
        (body([]), "prompt", "there is none"),
        (body([[]]), None, "the prompt is empty"),
        (body([-1]), "prompt", "no token ids"),
        (body([10**9]), None, "the model knows 0 to"),
        (body([10**18, 10**18]), "prompt", "no token ids"),
        (body(["a", 1]), "prompt[1]", "expected"),
        (body(""), None, "the prompt is empty"),
        (body(["a"] * 33), "prompt", "33 replies are too many"),
        (body("a", n=33), "n", "33 replies are too many"),
        (body(["a", "b"], stream=True), "prompt", "one prompt"),
        (body("a", suffix="b"), "suffix", "not supported"),
        (body("a", best_of=2), "best_of", "not supported"),
        (body("a", logprobs=6), "logprobs", "less than or equal to 5"),
        (body("a", logprobs=True), "logprobs", "expected an integer"),
    ],
)
async def test_an_error_says_what_to_change(client, given, param, says):
    response = await client.post(PATH, json=given)
    assert response.status_code == 400, response.text
    error = response.json()["error"]
    assert says in error["message"]
    assert error["param"] == param
