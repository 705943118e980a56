"""A model that says what a test wants it to say."""

import re

from guardrail.testing import tiny_model, tiny_tokenizer

OFFER = (
    "{% if tools %}{% for tool in tools %}{{ tool['function']['name'] }} {% endfor %}"
    "reply with <tool_call>{% endif %}"
)
CALLS = "{% for call in message['tool_calls'] or [] %}{{ call['function'] | tojson }}{% endfor %}"


def scripted(text):
    """A tiny model that says this, whatever it is asked, and its tokenizer, whose template knows tools."""
    tokenizer, words = tiny_tokenizer(), re.findall(r"\s*\S+", text)
    # words as tokens: there are fewer of them than bytes
    tokenizer.add_tokens(sorted(set(words)))
    model = tiny_model(vocab_size=len(tokenizer), max_position_embeddings=2048)
    ids = [*tokenizer.convert_tokens_to_ids(words), tokenizer.eos_token_id]
    # a token gets the higher a bias, the more of the script before it has been said
    model.generation_config.sequence_bias = [[ids[: i + 1], 1e3 * (i + 1)] for i in range(len(ids))]
    tokenizer.chat_template = OFFER + tokenizer.chat_template.replace(
        "['system', 'user', 'assistant']", "['system', 'user', 'assistant', 'tool']"
    ).replace("message['content'] ~ '<|end|>' }}", "message['content'] }}" + CALLS + "{{ '<|end|>' }}")
    return model, tokenizer
