"""Whose servers a host name is: the vendor, and where it is one of the wire's own, the provider."""

import re
from dataclasses import dataclass
from typing import Final

from capture.routes import Provider


@dataclass(frozen=True, slots=True)
class Host:
    """Hosts that end in ``suffix`` (whole labels), or match ``pattern`` whole where names vary
    more. ``provider`` overrides the path's.
    """

    suffix: str
    vendor: str
    provider: Provider | None = None
    pattern: re.Pattern[str] | None = None

    def owns(self, name: str) -> bool:
        """True for a host name (lower case, no port) of this row."""
        if self.pattern is not None:
            return self.pattern.fullmatch(name) is not None
        return name == self.suffix or name.endswith(f".{self.suffix}")


_VERTEX: Final = re.compile(r"(?:[a-z0-9-]+-)?aiplatform\.(?:[a-z0-9-]+\.rep\.)?googleapis\.com")
_BEDROCK: Final = re.compile(r"(?:.+\.)?bedrock(?:-[a-z-]+)?\..+\.(?:amazonaws\.com(?:\.cn)?|api\.aws)")

HOSTS: Final = (
    Host("api.anthropic.com", "anthropic"),
    Host("openai.azure.com", "azure"),
    Host("cognitiveservices.azure.com", "azure"),
    Host("services.ai.azure.com", "azure"),
    Host("models.ai.azure.com", "azure"),
    Host("inference.ai.azure.com", "azure"),
    Host("models.github.ai", "github"),
    Host("githubcopilot.com", "github-copilot"),
    Host("openai.com", "openai"),
    Host("chatgpt.com", "openai"),
    Host("generativelanguage.googleapis.com", "google"),
    Host("aiplatform.googleapis.com", "vertex", pattern=_VERTEX),
    Host("bedrock-runtime.us-east-1.amazonaws.com", "bedrock", pattern=_BEDROCK),
    Host("api.cohere.com", "cohere", Provider.COHERE),
    Host("api.cohere.ai", "cohere", Provider.COHERE),
    Host("api.mistral.ai", "mistral", Provider.MISTRAL),
    Host("codestral.mistral.ai", "mistral", Provider.MISTRAL),
    Host("ollama.com", "ollama"),
    Host("api.groq.com", "groq"),
    Host("api.deepseek.com", "deepseek"),
    Host("openrouter.ai", "openrouter"),
    Host("api.x.ai", "xai"),
    Host("api.perplexity.ai", "perplexity"),
    Host("api.together.xyz", "together"),
    Host("api.together.ai", "together"),
    Host("api.fireworks.ai", "fireworks"),
    Host("api.cerebras.ai", "cerebras"),
    Host("api.sambanova.ai", "sambanova"),
    Host("api.deepinfra.com", "deepinfra"),
    Host("api.hyperbolic.xyz", "hyperbolic"),
    Host("api.novita.ai", "novita"),
    Host("api.moonshot.ai", "moonshot"),
    Host("api.moonshot.cn", "moonshot"),
    Host("api.minimax.io", "minimax"),
    Host("api.z.ai", "zai"),
    Host("open.bigmodel.cn", "zai"),
    Host("dashscope.aliyuncs.com", "alibaba"),
    Host("dashscope-intl.aliyuncs.com", "alibaba"),
    Host("integrate.api.nvidia.com", "nvidia"),
    Host("router.huggingface.co", "huggingface"),
    Host("api.ai21.com", "ai21"),
    Host("api.writer.com", "writer"),
    Host("api.avian.io", "avian"),
    Host("api.cloudflare.com", "cloudflare"),
    Host("gateway.ai.cloudflare.com", "cloudflare"),
    Host("ai-gateway.vercel.sh", "vercel"),
    Host("databricks.com", "databricks"),
    Host("azuredatabricks.net", "databricks"),
    Host("snowflakecomputing.com", "snowflake"),
    Host("ml.cloud.ibm.com", "watsonx"),
)


def host_of(authority: str) -> Host | None:
    """The row of a ``:authority`` value (port allowed), or None for a host nobody knows."""
    name = authority.lower().rpartition("@")[2]
    if not name.startswith("["):
        name = name.partition(":")[0]
    return next((row for row in HOSTS if row.owns(name)), None)
