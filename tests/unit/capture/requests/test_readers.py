"""Each dialect's requests, read into one shape; and that no body makes reading fail."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capture.requests import Request, RequestMessage, dialect_of, read
from capture.requests.catalog import CATALOG
from capture.turn import Block, Dialect
from capture.wire_response import wire_block


def told(request: Request) -> list[tuple[str, list[dict[str, object]]]]:
    return [(message.role, [wire_block(block) for block in message.blocks]) for message in request.messages]


def test_every_dialect_has_its_reader() -> None:
    assert set(CATALOG) == set(Dialect)


TEXT = {"type": "text", "text": "hi"}
USE = {"type": "tool_use", "tool_use_id": "c", "tool_name": "f", "tool_input": {"a": 1}}
RESULT = {"type": "tool_result", "tool_result_id": "c", "tool_output": "ok"}
FUNCTION_CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}

CASES: dict[str, tuple[Dialect, dict[str, Any], list[tuple[str, list[dict[str, Any]]]]]] = {
    "anthropic: every kind of block": (
        Dialect.ANTHROPIC_MESSAGES,
        {
            "messages": [
                {"role": "user", "content": "hi"},
                {
                    "role": "assistant",
                    "content": [
                        {"type": "thinking", "thinking": "t", "signature": "s"},
                        {"type": "redacted_thinking", "data": "x"},
                        {"type": "tool_use", "id": "c", "name": "f", "input": {"a": 1}},
                    ],
                },
                {
                    "role": "user",
                    "content": [
                        {"type": "tool_result", "tool_use_id": "c", "content": "ok"},
                        {
                            "type": "tool_result",
                            "tool_use_id": "c",
                            "is_error": True,
                            "content": [TEXT, {"type": "image"}, TEXT],
                        },
                        {
                            "type": "image",
                            "source": {"type": "base64", "media_type": "image/png", "data": "aGk="},
                        },
                        {"type": "image", "source": {"type": "url", "url": "https://x.test"}},
                        {"type": "web_search_tool_result", "tool_use_id": "s", "content": [{"url": "u"}]},
                    ],
                },
            ]
        },
        [
            ("user", [TEXT]),
            (
                "assistant",
                [
                    {"type": "thinking", "thinking": "t", "thinking_signature": "s"},
                    {"type": "redacted_thinking"},
                    USE,
                ],
            ),
            (
                "user",
                [
                    RESULT,
                    {**RESULT, "tool_output": "hi\nhi", "is_error": True},
                    {"type": "image", "media_type": "image/png", "image_base64": "aGk="},
                    {"type": "image"},
                    {"type": "web_search_tool_result", "tool_result_id": "s", "content": [{"url": "u"}]},
                ],
            ),
        ],
    ),
    "chat: parts, calls and results": (
        Dialect.OPENAI_CHAT,
        {
            "messages": [
                {"role": "system", "content": "hi"},
                {"role": "user", "content": [TEXT, {"type": "image_url", "image_url": {"url": "u"}}]},
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [
                        FUNCTION_CALL,
                        {"id": "v", "function": {"name": "vanishes", "arguments": "{oops"}},
                        {"id": "v", "function": {"name": "vanishes", "arguments": "[1]"}},
                    ],
                },
                {"role": "tool", "tool_call_id": "c", "content": "ok"},
                {"role": "tool", "tool_call_id": "c", "content": [TEXT]},
                {"role": "tool", "content": "hi"},
            ]
        },
        [
            ("system", [TEXT]),
            ("user", [TEXT, {"type": "image", "image_url": "u"}]),
            ("assistant", [USE]),
            ("tool", [RESULT]),
            ("tool", [{"type": "tool_result", "tool_result_id": "c"}]),
            ("tool", [TEXT]),
        ],
    ),
    "responses: one message an item": (
        Dialect.OPENAI_RESPONSES,
        {
            "input": [
                {"role": "user", "content": "hi"},
                {
                    "type": "message",
                    "role": "assistant",
                    "content": [
                        {"type": "output_text", "text": "hi"},
                        {"type": "refusal", "refusal": "no"},
                        {"type": "input_image", "image_url": "u"},
                        {"type": "input_file", "file_id": "f"},
                    ],
                },
                {"role": "user", "content": ["odd"]},
                {"role": "user", "content": None},
                {"role": "user"},
                {"type": "function_call", "call_id": "c", "name": "f", "arguments": '{"a":1}'},
                {"type": "function_call", "call_id": "c", "name": "f", "arguments": ""},
                {"type": "function_call", "call_id": "c", "name": "f", "arguments": "[1]"},
                {"type": "function_call_output", "call_id": "c", "output": "ok"},
                {"type": "function_call_output", "call_id": "c", "output": [{"b": 1, "a": "é"}]},
                {
                    "type": "reasoning",
                    "summary": [{"text": "a"}, {"text": ""}, {"text": "b"}],
                    "encrypted_content": "e",
                },
                {"type": "custom_tool_call", "call_id": "c", "name": "f", "input": "ls"},
                {"type": "custom_tool_call_output", "call_id": "c", "output": [{"text": "o"}, {"text": "k"}]},
                {"type": "custom_tool_call_output", "call_id": "c", "output": ["odd"]},
                {"type": "item_reference", "id": "x"},
            ]
        },
        [
            ("user", [TEXT]),
            (
                "assistant",
                [
                    TEXT,
                    {"type": "refusal", "text": "no"},
                    {"type": "image", "image_url": "u"},
                    {"type": "input_file"},
                ],
            ),
            ("user", [{"type": "text", "content": ["odd"]}]),
            ("user", [{"type": "text"}]),
            ("user", []),
            ("assistant", [USE]),
            ("assistant", [{"type": "tool_use", "tool_use_id": "c", "tool_name": "f"}]),
            (
                "assistant",
                [
                    {
                        "type": "tool_use",
                        "tool_use_id": "c",
                        "tool_name": "f",
                        "content": {"type": "function_call", "call_id": "c", "name": "f", "arguments": "[1]"},
                    }
                ],
            ),
            ("tool", [RESULT]),
            ("tool", [{**RESULT, "tool_output": '[{"b":1,"a":"é"}]'}]),
            ("assistant", [{"type": "thinking", "thinking": "a\nb", "thinking_signature": "e"}]),
            ("assistant", [{**USE, "tool_input": {"input": "ls"}}]),
            ("tool", [RESULT]),
            ("tool", [{**RESULT, "tool_output": '["odd"]'}]),
            ("assistant", [{"type": "item_reference", "content": {"type": "item_reference", "id": "x"}}]),
        ],
    ),
    "responses: a text": (Dialect.OPENAI_RESPONSES, {"input": "hi"}, [("user", [TEXT])]),
    "completions: prompts": (
        Dialect.OPENAI_COMPLETIONS,
        {"prompt": ["hi", [1, 2], "hi"]},
        [("user", [TEXT, TEXT])],
    ),
    "ollama: text, images, calls": (
        Dialect.OLLAMA_CHAT,
        {
            "messages": [
                {"role": "user", "content": "hi", "images": ["aGk=", 5]},
                {
                    "role": "assistant",
                    "content": "",
                    "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": {"a": 1}}}],
                },
            ]
        },
        [("user", [TEXT, {"type": "image", "image_base64": "aGk="}]), ("assistant", [USE])],
    ),
    "ollama: a prompt": (
        Dialect.OLLAMA_GENERATE,
        {"prompt": "hi", "images": ["aGk="], "context": [1, 2]},
        [("user", [TEXT, {"type": "image", "image_base64": "aGk="}])],
    ),
    "gemini: parts": (
        Dialect.GEMINI,
        {
            "contents": [
                {"parts": {"text": "hi"}},
                {
                    "role": "user",
                    "parts": [
                        {"text": "hi"},
                        {"text": "hi"},
                        {"inlineData": {"mimeType": "image/png", "data": "aGk="}},
                    ],
                },
                {
                    "role": "model",
                    "parts": [
                        {"text": "h"},
                        {"text": "i"},
                        {"functionCall": {"id": "c", "name": "f", "args": {"a": 1}}},
                    ],
                },
                {
                    "role": "user",
                    "parts": [{"functionResponse": {"id": "c", "name": "f", "response": {"r": 1}}}],
                },
                {"role": "user", "parts": [{"newPart": 1}]},
            ]
        },
        [
            ("user", [TEXT]),
            ("user", [TEXT, TEXT, {"type": "image", "media_type": "image/png", "image_base64": "aGk="}]),
            ("assistant", [TEXT, USE]),
            ("user", [{**RESULT, "tool_name": "f", "tool_output": '{"r":1}'}]),
            ("user", [{"type": "unparsed", "content": {"newPart": 1}}]),
        ],
    ),
    "converse: parts": (
        Dialect.BEDROCK_CONVERSE,
        {
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {"text": "hi"},
                        {"image": {"format": "png", "source": {"bytes": "aGk="}}},
                        {"image": {"source": {"s3Location": {"uri": "s3://x"}}}},
                        {"cachePoint": {"type": "default"}},
                        {"newPart": {"a": 1}},
                    ],
                },
                {
                    "role": "assistant",
                    "content": [
                        {"reasoningContent": {"reasoningText": {"text": "t", "signature": "s"}}},
                        {"reasoningContent": {"redactedContent": "x"}},
                        {"toolUse": {"toolUseId": "c", "name": "f", "input": {"a": 1}}},
                    ],
                },
                {
                    "role": "user",
                    "content": [
                        {
                            "toolResult": {
                                "toolUseId": "c",
                                "status": "error",
                                "content": [
                                    {"text": "ok"},
                                    {"json": {"b": 1}},
                                    {"text": ""},
                                    {"video": {"x": 1}},
                                ],
                            }
                        }
                    ],
                },
            ]
        },
        [
            (
                "user",
                [
                    TEXT,
                    {"type": "image", "media_type": "image/png", "image_base64": "aGk="},
                    {"type": "image", "image_url": "s3://x"},
                    {"type": "unparsed", "content": {"newPart": {"a": 1}}},
                ],
            ),
            (
                "assistant",
                [
                    {"type": "thinking", "thinking": "t", "thinking_signature": "s"},
                    {"type": "redacted_thinking"},
                    USE,
                ],
            ),
            ("user", [{**RESULT, "tool_output": 'ok\n{"b":1}\n{"video":{"x":1}}', "is_error": True}]),
        ],
    ),
    "invoke: an Anthropic body": (
        Dialect.BEDROCK_INVOKE,
        {"anthropic_version": "bedrock-2023-05-31", "messages": [{"role": "user", "content": [TEXT]}]},
        [("user", [TEXT])],
    ),
    "invoke: a Nova body": (
        Dialect.BEDROCK_INVOKE,
        {"schemaVersion": "messages-v1", "messages": [{"role": "user", "content": [{"text": "hi"}]}]},
        [("user", [TEXT])],
    ),
    "invoke: a chat body": (
        Dialect.BEDROCK_INVOKE,
        {"messages": [{"role": "user", "content": "hi"}]},
        [("user", [TEXT])],
    ),
    "invoke: Titan": (Dialect.BEDROCK_INVOKE, {"inputText": "hi"}, [("user", [TEXT])]),
    "invoke: a prompt": (Dialect.BEDROCK_INVOKE, {"prompt": "hi"}, [("user", [TEXT])]),
    "invoke: Command R": (
        Dialect.BEDROCK_INVOKE,
        {"message": "hi", "chat_history": [{"role": "CHATBOT", "message": "hi"}]},
        [("assistant", [TEXT]), ("user", [TEXT])],
    ),
    "cohere v1: history, calls and results": (
        Dialect.COHERE_V1,
        {
            "chat_history": [
                {"role": "USER", "message": "hi"},
                {"role": "CHATBOT", "message": "", "tool_calls": [{"name": "f", "parameters": {"a": 1}}]},
            ],
            "message": "",
            "tool_results": [{"call": {"name": "f"}, "outputs": [{"r": 1}]}],
        },
        [
            ("user", [TEXT]),
            ("assistant", [{"type": "tool_use", "tool_name": "f", "tool_input": {"a": 1}}]),
            ("tool", [{"type": "tool_result", "tool_name": "f", "tool_output": '[{"r":1}]'}]),
        ],
    ),
    "cohere v1: generate": (Dialect.COHERE_V1, {"prompt": "hi"}, [("user", [TEXT])]),
    "cohere v2: plan, thinking, documents": (
        Dialect.COHERE_V2,
        {
            "messages": [
                {"role": "user", "content": [TEXT]},
                {"role": "assistant", "tool_plan": "p", "tool_calls": [FUNCTION_CALL]},
                {
                    "role": "tool",
                    "tool_call_id": "c",
                    "content": [{"type": "document", "document": {"data": 1}}],
                },
                {"role": "assistant", "content": [{"type": "thinking", "thinking": "t"}, TEXT]},
            ]
        },
        [
            ("user", [TEXT]),
            ("assistant", [{"type": "thinking", "thinking": "p"}, USE]),
            ("tool", [{**RESULT, "tool_output": '[{"type":"document","document":{"data":1}}]'}]),
            ("assistant", [{"type": "thinking", "thinking": "t"}, TEXT]),
        ],
    ),
}


@pytest.mark.parametrize(("dialect", "body", "messages"), CASES.values(), ids=CASES)
def test_messages_are_read(
    dialect: Dialect, body: dict[str, Any], messages: list[tuple[str, list[dict[str, Any]]]]
) -> None:
    assert told(read(dialect, body)) == messages


TOOL = {"type": "function", "function": {"name": "f"}}

FACTS: dict[str, tuple[Dialect, dict[str, Any], Request]] = {
    "anthropic": (
        Dialect.ANTHROPIC_MESSAGES,
        {
            "model": "m",
            "stream": True,
            "system": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}],
            "tools": [{"name": "f"}, {"type": "web_search_1", "name": "web_search"}],
        },
        Request(model="m", stream=True, system="a\nb", tool_names=("f", "web_search")),
    ),
    "chat": (
        Dialect.OPENAI_CHAT,
        {"model": "m", "stream": False, "tools": [TOOL], "functions": [{"name": "g"}]},
        Request(model="m", stream=False, tool_names=("f", "g")),
    ),
    "responses": (
        Dialect.OPENAI_RESPONSES,
        {
            "model": "m",
            "instructions": "a",
            "tools": [{"type": "function", "name": "f"}, {"type": "web_search"}],
        },
        Request(model="m", system="a", tool_names=("f", "web_search")),
    ),
    "gemini": (
        Dialect.GEMINI,
        {
            "system_instruction": {"parts": [{"text": "a"}, {"text": "b"}]},
            "tools": [{"functionDeclarations": [{"name": "f"}, {"name": "g"}]}, {"google_search": {}}],
        },
        Request(system="a\nb", tool_names=("f", "g", "google_search")),
    ),
    "converse": (
        Dialect.BEDROCK_CONVERSE,
        {
            "system": [{"text": "a"}],
            "toolConfig": {
                "tools": [{"toolSpec": {"name": "f"}}, {"systemTool": {"name": "g"}}, {"cachePoint": {}}]
            },
        },
        Request(system="a", tool_names=("f", "g")),
    ),
    "cohere v2": (Dialect.COHERE_V2, {"model": "m", "tools": [TOOL]}, Request(model="m", tool_names=("f",))),
    "ollama": (Dialect.OLLAMA_CHAT, {"model": "m", "tools": [TOOL]}, Request(model="m", tool_names=("f",))),
    "generate": (
        Dialect.OLLAMA_GENERATE,
        {"model": "m", "system": "a"},
        Request(model="m", system="a", messages=(RequestMessage(role="user"),)),
    ),
    "cohere v1": (
        Dialect.COHERE_V1,
        {"model": "m", "preamble": "a", "message": "hi", "tools": [{"name": "f"}]},
        Request(
            model="m",
            system="a",
            tool_names=("f",),
            messages=(RequestMessage(role="user", blocks=(Block(type="text", text="hi"),)),),
        ),
    ),
}


@pytest.mark.parametrize(("dialect", "body", "request_"), FACTS.values(), ids=FACTS)
def test_model_stream_system_and_tools_are_read(
    dialect: Dialect, body: dict[str, Any], request_: Request
) -> None:
    assert read(dialect, body) == request_


@pytest.mark.parametrize("dialect", Dialect)
def test_no_body_is_an_empty_request(dialect: Dialect) -> None:
    assert read(dialect, None) == Request()


@pytest.mark.parametrize(
    ("body", "kind"), [([], "array"), ("x", "string"), (True, "boolean"), (1.5, "number")]
)
def test_a_body_that_is_no_object_says_what_it_is(body: object, kind: str) -> None:
    assert kind in read(Dialect.GEMINI, body).problem


@pytest.mark.parametrize(
    ("provider", "named", "body", "dialect"),
    [
        ("anthropic", "", {}, Dialect.ANTHROPIC_MESSAGES),
        ("openai", "", {"input": "hi"}, Dialect.OPENAI_RESPONSES),
        ("openai", "", {"input": "hi", "messages": None}, Dialect.OPENAI_RESPONSES),
        ("openai", "", {"input": "hi", "messages": []}, Dialect.OPENAI_CHAT),
        ("openai", "", {"input": None}, Dialect.OPENAI_CHAT),
        ("openai", "", {"prompt": "hi"}, Dialect.OPENAI_COMPLETIONS),
        ("openai", "chat_completions", {"input": "hi"}, Dialect.OPENAI_RESPONSES),
        ("openai", "cohere_v2", {"input": "hi"}, Dialect.COHERE_V2),
        ("ollama", "", {"messages": []}, Dialect.OLLAMA_CHAT),
        ("ollama", "", {"prompt": "hi"}, Dialect.OLLAMA_GENERATE),
        ("cohere", "", {"messages": []}, Dialect.COHERE_V2),
        ("cohere", "", {"message": "hi"}, Dialect.COHERE_V1),
        ("gemini", "", {}, Dialect.GEMINI),
        ("bedrock", "", {"messages": []}, Dialect.BEDROCK_INVOKE),
        ("mistral", "", {"messages": []}, Dialect.OPENAI_CHAT),
        ("new", "", {"contents": []}, Dialect.GEMINI),
        ("new", "", {"anthropic_version": "x"}, Dialect.BEDROCK_INVOKE),
        ("new", "", {"messages": []}, Dialect.OPENAI_CHAT),
        ("new", "", None, Dialect.OPENAI_CHAT),
    ],
)
def test_the_dialect_is_named_or_told_by_provider_and_shape(
    provider: str, named: str, body: object, dialect: Dialect
) -> None:
    assert dialect_of(provider, named, body) is dialect


MEMBERS = st.sampled_from(
    """
    model messages stream system tools role content type text source id name input tool_use_id
    tool_calls function arguments image_url tool_call_id call_id output summary contents parts
    functionCall functionResponse functionDeclarations systemInstruction inlineData toolUse
    toolResult toolConfig toolSpec image reasoningContent reasoningText prompt inputText images
    message chat_history tool_results call outputs preamble tool_plan thinking anthropic_version
    """.split()  # noqa: SIM905 (a list of sixty words reads better as text)
)
KINDS = st.sampled_from(
    ["message", "function_call", "custom_tool_call_output", "reasoning", "tool", "model", "hi"]
)
BODIES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | KINDS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(MEMBERS | KINDS, inner, max_size=6),
    max_leaves=30,
)


@given(st.sampled_from(Dialect), st.dictionaries(MEMBERS, BODIES, max_size=8) | BODIES)
def test_no_body_makes_reading_fail(dialect: Dialect, body: object) -> None:
    request = read(dialect, body)
    assert bool(request.problem) is not (body is None or isinstance(body, dict))
