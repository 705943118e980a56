"""A model that says what a test wants it to say."""

from guardrail.testing import tiny_model, tiny_tokenizer

OFFER = (
    "{% if tools %}{% for tool in tools %}{{ tool['function']['name'] }} {% endfor %}"
    "reply with <tool_call>{% endif %}"
)
CALLS = "{% for call in message['tool_calls'] or [] %}{{ call['function'] | tojson }}{% endfor %}"


def scripted(text):
    """A tiny model that says this, whatever it is asked, and its tokenizer, whose template knows tools."""
    tokenizer, model = tiny_tokenizer(), tiny_model(max_position_embeddings=2048)
    ids = [*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    # a token gets the higher a bias, the more of the script before it has been said
    model.generation_config.sequence_bias = [[ids[: i + 1], 1e3 * (i + 1)] for i in range(len(ids))]
    tokenizer.chat_template = OFFER + tokenizer.chat_template.replace(
        "['system', 'user', 'assistant']", "['system', 'user', 'assistant', 'tool']"
    ).replace("message['content'] ~ '<|end|>' }}", "message['content'] }}" + CALLS + "{{ '<|end|>' }}")
    return model, tokenizer
