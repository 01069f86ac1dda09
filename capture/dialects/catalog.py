"""The dialects Steno speaks: the product's table of contents.

Adding one is a row here and a module beside it (``docs/adding-a-dialect.md``).
A test asserts that every ``Dialect`` has its row.
"""

from collections.abc import Mapping
from typing import Final

from capture.dialects.anthropic import AnthropicFold
from capture.dialects.bedrock_converse import ConverseFold
from capture.dialects.bedrock_invoke import InvokeFold
from capture.dialects.cohere_v1 import CohereV1Fold
from capture.dialects.cohere_v2 import CohereV2Fold
from capture.dialects.fold import DialectEntry
from capture.dialects.gemini import GeminiFold
from capture.dialects.ollama import GenerateFold, OllamaFold
from capture.dialects.openai_chat import ChatFold
from capture.dialects.openai_completions import CompletionsFold
from capture.dialects.openai_responses import ResponsesFold
from capture.framing import Framing
from capture.turn import Dialect

_CONTRACT_LINE_BYTES: Final = 1_048_576
"""The contract stops reading an Anthropic stream at a longer line (``behaviour.md`` §7)."""

CATALOG: Final[Mapping[Dialect, DialectEntry]] = {
    Dialect.ANTHROPIC_MESSAGES: DialectEntry(
        fold=AnthropicFold, stream=Framing.SSE, max_line_bytes=_CONTRACT_LINE_BYTES
    ),
    Dialect.GEMINI: DialectEntry(
        fold=GeminiFold, stream=Framing.JSON_ARRAY, doubts_stream_type=True, bare_json_in_stream=True
    ),
    Dialect.BEDROCK_CONVERSE: DialectEntry(fold=ConverseFold, stream=Framing.EVENTSTREAM),
    Dialect.BEDROCK_INVOKE: DialectEntry(fold=InvokeFold, stream=Framing.EVENTSTREAM),
    Dialect.OPENAI_CHAT: DialectEntry(fold=ChatFold, stream=Framing.SSE, doubts_stream_type=True),
    Dialect.OPENAI_COMPLETIONS: DialectEntry(
        fold=CompletionsFold, stream=Framing.SSE, doubts_stream_type=True
    ),
    Dialect.OPENAI_RESPONSES: DialectEntry(fold=ResponsesFold, stream=Framing.SSE, doubts_stream_type=True),
    Dialect.COHERE_V1: DialectEntry(fold=CohereV1Fold, stream=Framing.NDJSON, doubts_stream_type=True),
    Dialect.COHERE_V2: DialectEntry(fold=CohereV2Fold, stream=Framing.SSE, doubts_stream_type=True),
    Dialect.OLLAMA_CHAT: DialectEntry(fold=OllamaFold, stream=Framing.NDJSON, doubts_stream_type=True),
    Dialect.OLLAMA_GENERATE: DialectEntry(fold=GenerateFold, stream=Framing.NDJSON, doubts_stream_type=True),
}
