"""The official SDKs' own decoders, each reading a stream from memory.

Every one is called as its users call it, over a transport that hands out the body in
pieces, and is only iterated: nothing is accumulated, which favours the SDK. They have no
types that we could rely on, and need not be installed: ``decoder`` says when one is not.
"""

import importlib
import io
import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

Decode = Callable[[bytes, str], int]
"""Reads a body of a content type; the number of events that came out."""

_CHUNK_BYTES: Final = 4096
_MESSAGES: Final = [{"role": "user", "content": "x"}]


class AbsentError(Exception):
    """The SDK is not installed; the text names the package."""


def _module(name: str, package: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise AbsentError(f"{package} is not installed") from error


def _transport(http: Any, body: bytes, content_type: str) -> Any:
    """A transport of an HTTP library that answers with the body, in pieces."""

    def pieces() -> Iterator[bytes]:
        for start in range(0, len(body), _CHUNK_BYTES):
            yield body[start : start + _CHUNK_BYTES]

    def answer(request: object) -> Any:
        del request
        return http.Response(200, headers={"content-type": content_type}, content=pieces())

    return http.MockTransport(answer)


def _client(http: Any, body: bytes, content_type: str) -> Any:
    return http.Client(transport=_transport(http, body, content_type))


def _count(events: Iterable[object]) -> int:
    return sum(1 for _ in events)


def _http_of(sdk: Any) -> Any:
    """The HTTP library whose client the SDK's own derives from (versions differ)."""
    derived = sdk.DefaultHttpxClient.__mro__
    bases = [base.__module__.partition(".")[0] for base in derived]
    return importlib.import_module(next(name for name in bases if name != sdk.__name__))


def _anthropic() -> Decode:
    sdk = _module("anthropic", "anthropic")
    http = _http_of(sdk)

    def decode(body: bytes, content_type: str) -> int:
        client = sdk.Anthropic(api_key="x", http_client=_client(http, body, content_type))
        return _count(client.messages.create(model="m", max_tokens=1, messages=_MESSAGES, stream=True))

    return decode


def _openai(call: Callable[[Any], Iterable[object]]) -> Decode:
    sdk = _module("openai", "openai")
    http = _http_of(sdk)

    def decode(body: bytes, content_type: str) -> int:
        return _count(call(sdk.OpenAI(api_key="x", http_client=_client(http, body, content_type))))

    return decode


def _mistral() -> Decode:
    sdk = _module("mistralai.client", "mistralai")
    http = _module("httpx", "httpx")

    def decode(body: bytes, content_type: str) -> int:
        client = sdk.Mistral(api_key="x", client=_client(http, body, content_type))
        return _count(client.chat.stream(model="m", messages=_MESSAGES))

    return decode


def _gemini() -> Decode:
    sdk = _module("google.genai", "google-genai")
    http = _module("httpx", "httpx")

    def decode(body: bytes, content_type: str) -> int:
        options = sdk.types.HttpOptions(httpx_client=_client(http, body, content_type))
        client = sdk.Client(api_key="x", http_options=options)
        return _count(client.models.generate_content_stream(model="m", contents="x"))

    return decode


def _cohere_v1() -> Decode:
    sdk = _module("cohere", "cohere")
    http = _module("httpx", "httpx")

    def decode(body: bytes, content_type: str) -> int:
        client = sdk.Client(api_key="x", httpx_client=_client(http, body, content_type))
        return _count(client.chat_stream(model="m", message="x"))

    return decode


def _cohere_v2() -> Decode:
    sdk = _module("cohere", "cohere")
    http = _module("httpx", "httpx")

    def decode(body: bytes, content_type: str) -> int:
        client = sdk.ClientV2(api_key="x", httpx_client=_client(http, body, content_type))
        return _count(client.chat_stream(model="m", messages=_MESSAGES))

    return decode


def _ollama(call: Callable[[Any], Iterable[object]]) -> Decode:
    sdk = _module("ollama", "ollama")
    http = _module("httpx", "httpx")

    def decode(body: bytes, content_type: str) -> int:
        return _count(call(sdk.Client(transport=_transport(http, body, content_type))))

    return decode


class _Raw(io.BytesIO):
    """A raw response as botocore streams one."""

    def stream(self, amount: int = _CHUNK_BYTES) -> Iterator[bytes]:
        while piece := self.read(amount):
            yield piece


def _bedrock(operation: str, read: Callable[[Any], object]) -> Decode:
    events = _module("botocore.eventstream", "botocore")
    parsers = _module("botocore.parsers", "botocore")
    service = _module("botocore.session", "botocore").get_session().get_service_model("bedrock-runtime")
    shape = service.operation_model(operation).output_shape
    member = next(each for each in shape.members.values() if each.serialization.get("eventstream"))
    parser = parsers.EventStreamJSONParser()

    def decode(body: bytes, content_type: str) -> int:
        del content_type
        return _count(read(event) for event in events.EventStream(_Raw(body), member, parser, operation))

    return decode


def _invoked(event: Any) -> object:
    return json.loads(event["chunk"]["bytes"])


_DECODERS: Final[dict[str, tuple[str, Callable[[], Decode]]]] = {
    "anthropic": ("anthropic", _anthropic),
    "openai chat": (
        "openai",
        lambda: _openai(lambda sdk: sdk.chat.completions.create(model="m", messages=_MESSAGES, stream=True)),
    ),
    "mistral chat": ("mistralai", _mistral),
    "openai completions": (
        "openai",
        lambda: _openai(lambda sdk: sdk.completions.create(model="m", prompt="x", stream=True)),
    ),
    "openai responses": (
        "openai",
        lambda: _openai(lambda sdk: sdk.responses.create(model="m", input="x", stream=True)),
    ),
    "gemini sse": ("google-genai", _gemini),
    "bedrock converse": ("botocore", lambda: _bedrock("ConverseStream", lambda event: event)),
    "bedrock invoke": ("botocore", lambda: _bedrock("InvokeModelWithResponseStream", _invoked)),
    "cohere v1": ("cohere", _cohere_v1),
    "cohere v2": ("cohere", _cohere_v2),
    "ollama chat": (
        "ollama",
        lambda: _ollama(lambda sdk: sdk.chat(model="m", messages=_MESSAGES, stream=True)),
    ),
    "ollama generate": (
        "ollama",
        lambda: _ollama(lambda sdk: sdk.generate(model="m", prompt="x", stream=True)),
    ),
}


def decoder(name: str) -> tuple[str, Decode] | None:
    """The SDK for a stream of ``bench.streams``: its package and its decoder. None where no
    SDK reads such a stream. Raises AbsentError where it is not installed.
    """
    found = _DECODERS.get(name)
    return None if found is None else (found[0], found[1]())
