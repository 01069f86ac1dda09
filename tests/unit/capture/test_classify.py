"""What an exchange is, by its head and where needed its body."""

import json

import pytest

from capture.classify import BACKEND_HEADER, Classifier, Override, RequestHead, classify, settle
from capture.hosts import HOSTS, host_of
from capture.routes import Kind, Provider
from capture.turn import Dialect
from tests.paths import CORPUS, needs_shared

PLAIN = Classifier()


@pytest.mark.parametrize(
    ("path", "provider", "dialect"),
    [
        ("/v1/messages?beta=true", Provider.ANTHROPIC, Dialect.ANTHROPIC_MESSAGES),
        ("/gateway/anthropic/v1/messages/", Provider.ANTHROPIC, Dialect.ANTHROPIC_MESSAGES),
        ("/openai/deployments/d/chat/completions?api-version=1", Provider.OPENAI, Dialect.OPENAI_CHAT),
        ("/v1/completions", Provider.OPENAI, Dialect.OPENAI_COMPLETIONS),
        ("/backend-api/codex/responses", Provider.OPENAI, Dialect.OPENAI_RESPONSES),
        ("/v1beta/models/g:streamGenerateContent?alt=sse", Provider.GEMINI, Dialect.GEMINI),
        ("/model/a.b-v1%3A0/converse-stream", Provider.BEDROCK, Dialect.BEDROCK_CONVERSE),
        ("/model/a.b/invoke", Provider.BEDROCK, Dialect.BEDROCK_INVOKE),
        ("/v2/chat", Provider.COHERE, Dialect.COHERE_V2),
        ("/v1/projects/p/locations/l/endpoints/123:generateContent", Provider.GEMINI, Dialect.GEMINI),
        ("/api/generate", Provider.OLLAMA, Dialect.OLLAMA_GENERATE),
        (
            "/v1/projects/p/locations/l/publishers/anthropic/models/claude@1:streamRawPredict",
            Provider.ANTHROPIC,
            Dialect.ANTHROPIC_MESSAGES,
        ),
    ],
)
def test_turn_paths_are_known_under_any_prefix(path: str, provider: Provider, dialect: Dialect) -> None:
    found = classify(RequestHead("POST", "gw.test", path), PLAIN)
    assert (found.kind, found.provider, found.dialect) == (Kind.TURN, provider.value, dialect)


@pytest.mark.parametrize(
    "path",
    [
        "/v1/realtime", "/v1/embeddings", "/v2/rerank", "/v1/messages/count_tokens", "/v1/models", "/v1/files",
        "/v1/batches", "/v1/images/generations", "/v1/audio/speech", "/v1/moderations", "/v1/responses/r_1",
        "/v1/responses/compact", "/v1/messages/batches", "/v1beta/models/g:embedContent", "/api/embed",
        "/v1beta/models/g:countTokens", "/model/amazon.titan-embed-text-v2:0/invoke", "/api/tags",
        "/model/stability.stable-diffusion/invoke", "/v1/fine_tuning/jobs", "/v1/threads/t/runs",
    ],
)  # fmt: skip
def test_what_holds_no_turn_is_never_unknown(path: str) -> None:
    assert classify(RequestHead("POST", "", path), PLAIN).kind is Kind.NON_TURN


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE", "OPTIONS"])
def test_only_a_post_makes_a_turn(method: str) -> None:
    assert classify(RequestHead(method, "", "/v1/chat/completions"), PLAIN).kind is Kind.NON_TURN


def test_the_path_names_the_model_and_whether_it_streams() -> None:
    found = classify(RequestHead("POST", "", "/model/us.anthropic.claude%3A0/converse-stream"), PLAIN)
    assert (found.path_model, found.path_streams) == ("us.anthropic.claude:0", True)


def test_a_host_names_the_vendor_and_sometimes_the_provider() -> None:
    groq = classify(RequestHead("POST", "api.groq.com:443", "/openai/v1/chat/completions"), PLAIN)
    assert (groq.provider, groq.vendor) == ("openai", "groq")
    mistral = classify(RequestHead("POST", "api.mistral.ai", "/v1/chat/completions"), PLAIN)
    assert (mistral.provider, mistral.dialect) == ("mistral", Dialect.OPENAI_CHAT)


@pytest.mark.parametrize(
    ("host", "vendor"),
    [
        ("us-central1-aiplatform.googleapis.com", "vertex"),
        ("aiplatform.us.rep.googleapis.com", "vertex"),
        ("bedrock-runtime.cn-north-1.amazonaws.com.cn", "bedrock"),
        ("vpce-1.bedrock-runtime-fips.us-gov-west-1.amazonaws.com", "bedrock"),
        ("api.business.githubcopilot.com", "github-copilot"),
    ],
)
def test_regional_hosts_are_known(host: str, vendor: str) -> None:
    found = host_of(host)
    assert found is not None
    assert found.vendor == vendor


def test_a_host_is_matched_by_whole_labels() -> None:
    assert host_of("notopenai.com") is None
    assert host_of("s3.us-east-1.amazonaws.com") is None
    assert all(host_of(f"{row.suffix}:8443") is row for row in HOSTS)


def test_the_gateways_backend_header_outranks_the_path() -> None:
    backends = Classifier({"b": "openai", "odd": "someone"})
    head = RequestHead("POST", "", "/v1/messages", {BACKEND_HEADER: "b"})
    assert classify(head, backends).dialect is None
    odd = RequestHead("POST", "", "/v1/chat/completions", {BACKEND_HEADER: "odd"})
    assert (classify(odd, backends).provider, classify(odd, backends).dialect) == ("someone", None)


def test_an_override_outranks_everything() -> None:
    override = Override(path="/llm", dialect=Dialect.OPENAI_CHAT, provider="openai", host="corp.test")
    classifier = Classifier(overrides=(override,))
    assert classify(RequestHead("POST", "a.corp.test:80", "/llm/"), classifier).dialect is Dialect.OPENAI_CHAT
    assert classify(RequestHead("POST", "else.test", "/llm"), classifier).kind is Kind.NON_TURN


@pytest.mark.parametrize(
    ("body", "dialect"),
    [
        ({"messages": []}, Dialect.OPENAI_CHAT),
        ({"message": "hi"}, Dialect.COHERE_V1),
        ({"prompt": "hi"}, Dialect.OPENAI_COMPLETIONS),
        ({"inputs": [1.0]}, None),
        (None, None),
    ],
)
def test_a_shared_path_is_settled_by_the_request_body(body: object, dialect: Dialect | None) -> None:
    found = classify(RequestHead("POST", "", "/serving-endpoints/x/invocations"), PLAIN)
    assert found.kind is Kind.AMBIGUOUS
    settled = settle(found, body)
    assert (settled.dialect, settled.kind is Kind.TURN) == (dialect, dialect is not None)


@needs_shared
def test_every_recorded_exchange_is_classified_as_what_it_is() -> None:
    wrong: list[str] = []
    for meta_file in sorted(CORPUS.glob("*/*/meta.json")):
        meta = json.loads(meta_file.read_text())
        request = (meta_file.parent / "request.json").read_bytes()
        head = RequestHead("POST", meta.get("host") or "", meta["endpoint_path"])
        found = settle(classify(head, PLAIN), json.loads(request) if request else None)
        turn = json.loads((meta_file.parent / "expected.json").read_text())["canonical"] is not None
        if (found.kind is Kind.TURN) != turn or (turn and found.dialect is None):
            wrong.append(f"{meta_file.parent.name}: {found}")
    assert not wrong
