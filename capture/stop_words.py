"""Why the model stopped: every provider's word, in one vocabulary (CANONICAL.md).

Words are compared in lower case. A word that no table row names is ``other``.
"""

from typing import Final

from capture.turn import Result

_WORDS: Final[dict[Result, str]] = {
    Result.STOP: (
        "stop end_turn stop_sequence complete completed finish stop_criteria_met eos eos_token endoftext"
    ),
    Result.MAX_TOKENS: (
        "max_tokens length max_output_tokens model_length model_context_window_exceeded error_limit"
    ),
    Result.TOOL_CALL: "tool_use tool_calls tool_call function_call",
    Result.REFUSAL: "refusal",
    Result.BLOCKED: (
        "content_filter content_filtered guardrail_intervened safety recitation blocklist"
        " prohibited_content spii image_safety image_prohibited_content image_recitation"
        " model_armor jailbreak error_toxic sensitive"
    ),
    Result.MAX_ITERATIONS: "pause_turn too_many_tool_calls",
    Result.ERROR: (
        "error failed timeout malformed_function_call unexpected_tool_call"
        " missing_thought_signature malformed_response malformed_model_output malformed_tool_use"
        " insufficient_system_resource network_error"
    ),
    Result.INCOMPLETE: "incomplete in_progress queued cancelled user_cancel",
}

_RESULT_OF: Final = {word: result for result, words in _WORDS.items() for word in words.split()}


def result_of(
    word: str | None, *, partial: bool, has_tool_calls: bool, refused: bool = False, failed: bool = False
) -> Result:
    """The result that a stop word means, given what came with it.

    ``word`` is the provider's, or None when it sent none. An ordinary stop (or no
    word) with client tool calls is ``tool_call``; an ordinary stop whose message is a
    refusal is ``refusal``. ``failed``: a provider error came, which outranks all.
    """
    if failed:
        return Result.ERROR
    if word:
        result = _RESULT_OF.get(word.lower(), Result.OTHER)
    else:
        result = Result.INCOMPLETE if partial else Result.OTHER
    ordinary = result is Result.STOP or not word
    if ordinary and has_tool_calls:
        return Result.TOOL_CALL
    if result is Result.STOP and refused:
        return Result.REFUSAL
    return result
