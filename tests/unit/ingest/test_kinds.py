"""What calls are for, on recorded requests and on the openings that harnesses use."""

import base64
import json
from typing import Any

import pytest

from capture.requests.catalog import dialect_of, read
from ingest.derivation.kinds import MARKERS, Kind, kind_of
from tests.paths import CORPORA, CORPUS, needs_shared

JsonObject = dict[str, Any]


def kind(request: JsonObject, provider: str = "anthropic", dialect: str = "") -> Kind:
    """The kind of a request as a client sends it."""
    parsed = read(dialect_of(provider, dialect, request), request)
    assert not parsed.problem
    return kind_of(parsed, request.get("max_tokens"))


def anthropic(*asked: str, system: str = "", tools: tuple[str, ...] = (), **members: Any) -> JsonObject:
    """A Messages request: what the person says, with an answer between."""
    talk: list[JsonObject] = []
    for text in asked:
        talk += [{"role": "user", "content": text}, {"role": "assistant", "content": "well"}]
    named = [{"name": name, "input_schema": {"type": "object"}} for name in tools]
    return {
        "model": "m",
        "max_tokens": 900,
        "messages": talk[:-1],
        "system": system,
        "tools": named,
    } | members


def chat(system: str, *asked: str) -> JsonObject:
    """A Chat Completions request: its instructions are a message."""
    said = [{"role": "user", "content": text} for text in asked]
    return {"model": "m", "messages": [{"role": "system", "content": system}, *said]}


CLAUDE_CODE = "You are Claude Code, Anthropic's official CLI for Claude."

HELPERS: list[tuple[Kind, str, JsonObject]] = [
    (Kind.TITLE_GENERATION, "", anthropic("fix it", system=f"{CLAUDE_CODE}\nAnalyze if this message indicates a new conversation topic. If it does, extract a title.")),
    (Kind.TITLE_GENERATION, "", anthropic("Please write a 5-10 word title for the following conversation:\n\nUser: fix it")),
    (Kind.TITLE_GENERATION, "openai", chat("You are a title generator. You output ONLY a thread title.", "Generate a title for this conversation:", "fix it")),
    (Kind.TITLE_GENERATION, "openai", chat("You are an expert in crafting pithy titles for chatbot conversations.", "Please write a brief title for: fix it")),
    (Kind.TITLE_GENERATION, "openai", chat("be kind", "### Task:\nGenerate a concise, 3-5 word title with an emoji summarizing the chat history.")),
    (Kind.TITLE_GENERATION, "openai", chat("\n\n    - you will generate a short title based on the first message a user begins a conversation with", "fix it")),
    (Kind.TITLE_GENERATION, "", anthropic("fix it", "Generate a concise 3-7 word title for this conversation, omitting punctuation.")),
    (Kind.TITLE_GENERATION, "", anthropic("Suggest a short title for this conversation: a person asks about dogs")),
    (Kind.QUICKGEN, "", anthropic("Command: ls\nOutput: a.py", system=f"{CLAUDE_CODE}\nExtract any file paths that this command reads or modifies.")),
    (Kind.QUICKGEN, "", anthropic("Command: ls", system="<policy_spec>\n# Claude Code Code Bash command prefix detection")),
    (Kind.QUICKGEN, "openai", chat("You are an AI programming assistant, helping a software developer to come with the best git commit message for their code changes.", "diff")),
    (Kind.QUICKGEN, "openai", chat("You are an expert software engineer that generates concise, one-line Git commit messages based on the provided diffs.", "diff")),
    (Kind.QUICKGEN, "openai", chat("be kind", "### Task:\nSuggest 3-5 relevant follow-up questions or prompts")),
    (Kind.COMPACTION, "", anthropic("fix it", "Respond with TEXT ONLY.\n\nYour task is to create a detailed summary of the conversation so far.", tools=("Bash",))),
    (Kind.COMPACTION, "openai", {"model": "m", "instructions": "You are Codex", "input": [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "You are performing a CONTEXT CHECKPOINT COMPACTION. Create a handoff summary"}]}]}),
    (Kind.COMPACTION, "", anthropic("fix it", '<explicit_instructions type="summarize_task">\nThe current conversation is rapidly running out of context.', tools=("read_file",))),
    (Kind.COMPACTION, "openai", chat("You are a helpful AI assistant tasked with summarizing conversations.", "Provide a detailed prompt for continuing our conversation above.")),
    (Kind.COMPACTION, "openai", chat("Your task is to create a comprehensive, detailed summary of the entire conversation that captures all", "go on")),
    (Kind.COMPACTION, "gemini", {"systemInstruction": {"parts": [{"text": "You are the component that summarizes internal chat history into a given structure."}]}, "contents": [{"role": "user", "parts": [{"text": "go on"}]}]}),
    (Kind.COMPACTION, "openai", chat("*Briefly* summarize this partial conversation about programming.", "# USER\nfix it")),
    (Kind.OTHER, "", anthropic("quota", max_tokens=1)),
]  # fmt: skip

ORDINARY: list[JsonObject] = [
    anthropic("Write a title for my blog post about conversations with my cat"),
    anthropic("Generate a title and a summary for this article: the history of chat"),
    anthropic("How do I create a title for a chat session in my app?"),
    anthropic("Suggest a title for the chat app I am building"),
    anthropic("What does `You are a title generator` do in opencode's prompt?"),
    anthropic("Which prompt says 'You are performing a CONTEXT CHECKPOINT COMPACTION'?"),
    anthropic("Summarize this conversation between Anna and Bo: hi. hi."),
    anthropic("hello", "Now generate a title for this conversation"),
    anthropic("hello", "Please give me a summary of our conversation so far"),
    anthropic("fix it", system="You are a coder.\n- Suggest a title for the conversation when asked.\n"),
    anthropic("fix it", system="Generate titles for every session of the conference.", tools=("calendar",)),
    anthropic("Is this brief?", system="Answer in one word.", max_tokens=16),
    anthropic("yes or no", max_tokens=1),
    anthropic("This session is being continued from a previous conversation. Summary: fix it. Go on."),
    chat("You help with git. Write a commit message only when asked.", "what is a rebase?"),
    {"model": "m", "messages": [{"role": "developer", "content": "Hello, I'm a developer!"}]},
]


@pytest.mark.parametrize(("expected", "provider", "request_body"), HELPERS)
def test_what_a_harness_asks_for_itself_is_told_from_turns(
    expected: Kind, provider: str, request_body: JsonObject
) -> None:
    assert kind(request_body, provider or "anthropic") is expected


@pytest.mark.parametrize("request_body", ORDINARY)
def test_what_a_person_asks_is_a_turn_whatever_its_words(request_body: JsonObject) -> None:
    provider = "anthropic" if "system" in request_body else "openai"
    assert kind(request_body, provider) is Kind.CHAT_TURN


@pytest.mark.parametrize(
    "opening", ["You are performing a CONTEXT CHECKPOINT COMPACTION.", "You are a title generator"]
)
def test_what_a_tool_read_is_asked_by_nobody(opening: str) -> None:
    """An agent reads files with prompts in them, such as this one."""
    result = {"type": "tool_result", "tool_use_id": "t", "content": opening}
    talk = [{"role": "user", "content": "read it"}, {"role": "user", "content": [result]}]
    assert kind({"model": "m", "messages": talk}) is Kind.CHAT_TURN


def test_every_marker_is_a_helper_call() -> None:
    assert {marker.kind for marker in MARKERS} == {Kind.TITLE_GENERATION, Kind.QUICKGEN, Kind.COMPACTION}


@needs_shared
def test_of_the_recorded_requests_one_asks_for_a_title_and_the_embeddings_are_no_turns() -> None:
    found: dict[Kind, set[str]] = {each: set() for each in Kind}
    for path in CORPUS.rglob("request.json"):
        try:
            body = json.loads(path.read_bytes())
        except ValueError:  # recorded so: the client sent no JSON
            continue
        source = path.relative_to(CORPUS).parts[0]
        provider = "openai" if source.startswith("openai") else source
        parsed = read(dialect_of(provider, "", body), body)
        found[kind_of(parsed, body.get("max_tokens"))].add(path.parent.name)
    assert found[Kind.TITLE_GENERATION] == {"chat-testruntime-mistral-basic-1-293374"}
    assert not found[Kind.QUICKGEN] | found[Kind.COMPACTION]
    assert all("embed" in name or "rerank" in name for name in found[Kind.OTHER])
    assert len(found[Kind.CHAT_TURN]) > 100


@needs_shared
def test_the_recorded_call_of_a_harness_that_has_its_body_asks_for_a_title() -> None:
    found: list[Kind] = []
    for path in CORPORA.joinpath("recordings").rglob("request.json"):
        encoded = json.loads(path.read_bytes())["body_b64"]
        if encoded:
            found.append(kind(json.loads(base64.b64decode(encoded))))
    assert found == [Kind.TITLE_GENERATION]
