"""What the door makes of the headers of a request, without a server."""

from guardrail_vllm.serving import GuardMiddleware
from guardrail_vllm.serving.calls import current


async def test_tags_in_several_lines_all_count(monkeypatch):
    seen = []

    async def app(scope, receive, send):
        seen.append((current().tags, current().conversation))

    door = GuardMiddleware(app)
    monkeypatch.setattr(door, "_door", object())
    lines = [
        (b"x-guardrail-tags", b"a, ,b"),
        (b"X-Guardrail-Tags", b"c"),
        (b"x-guardrail-conversation", b"1"),
    ]
    await door({"type": "http", "headers": lines}, None, None)
    assert seen == [(["a", "b", "c"], "1")]
