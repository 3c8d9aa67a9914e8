"""OpenAI's own client against whatever OPENAI_BASE_URL and OPENAI_API_KEY name; run in an environment that has it.

python openai_client.py MODEL      prints what it saw as one JSON document
"""

import json
import sys

import openai


def main(model: str) -> None:
    client = openai.OpenAI(max_retries=0, timeout=60)
    messages = [{"role": "user", "content": "Say hello."}]
    whole = client.chat.completions.create(model=model, messages=messages, max_tokens=16, temperature=0)
    parts = client.chat.completions.create(
        model=model, messages=messages, max_tokens=16, temperature=0, stream=True, stream_options={"include_usage": True}
    )
    texts, usage = [], None
    for part in parts:
        texts += [choice.delta.content for choice in part.choices if choice.delta.content]
        usage = part.usage or usage
    refused = {}
    for key in ("not-the-key", client.api_key[:-1]):
        try:
            openai.OpenAI(api_key=key, max_retries=0).chat.completions.create(model=model, messages=messages, max_tokens=1)
        except openai.AuthenticationError as e:
            refused[key[:3]] = e.status_code
    print(
        json.dumps(
            {
                "version": openai.__version__,
                "models": [one.id for one in client.models.list()],
                "text": whole.choices[0].message.content,
                "tokens": whole.usage.completion_tokens,
                "streamed": "".join(texts),
                "parts": len(texts),
                "streamedTokens": usage.completion_tokens,
                "refused": list(refused.values()),
            }
        )
    )


if __name__ == "__main__":
    main(sys.argv[1])
