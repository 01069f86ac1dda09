"""Whose servers a host name is: the vendor, and where it is one of the wire's own, the provider."""

from dataclasses import dataclass
from typing import Final

from capture.routes import Provider


@dataclass(frozen=True, slots=True)
class Host:
    """Hosts that end in ``suffix`` (whole labels). ``provider`` overrides the path's."""

    suffix: str
    vendor: str
    provider: Provider | None = None


HOSTS: Final = (
    Host("api.anthropic.com", "anthropic"),
    Host("openai.azure.com", "azure"),
    Host("cognitiveservices.azure.com", "azure"),
    Host("services.ai.azure.com", "azure"),
    Host("models.ai.azure.com", "azure"),
    Host("inference.ai.azure.com", "azure"),
    Host("models.github.ai", "github"),
    Host("api.githubcopilot.com", "github-copilot"),
    Host("openai.com", "openai"),
    Host("chatgpt.com", "openai"),
    Host("generativelanguage.googleapis.com", "google"),
    Host("aiplatform.googleapis.com", "vertex"),
    Host("amazonaws.com", "bedrock"),
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
    return next((row for row in HOSTS if name == row.suffix or name.endswith(f".{row.suffix}")), None)
