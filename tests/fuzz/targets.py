"""Every fuzz target, by the name used on the command line."""

from tests.fuzz import fuzz_coding, fuzz_dialects, fuzz_framing, fuzz_http2
from tests.fuzz.target import Target

TARGETS: dict[str, Target] = {
    **fuzz_framing.TARGETS,
    **fuzz_coding.TARGETS,
    **fuzz_dialects.TARGETS,
    **fuzz_http2.TARGETS,
}
