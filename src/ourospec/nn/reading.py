"""What every causal model of tokens does before its first layer."""

from torch import Tensor

from ourospec.errors import ConfigError
from ourospec.nn.attention import Cache, Visibility


def look(tokens: Tensor, documents: Tensor | None, cache: Cache | None, max_length: int) -> Visibility:
    """Who sees whom among tokens [B, T], behind what the cache holds.

    Raises:
        ConfigError: more positions than the model or the cache was built for.
    """
    past, length = (cache.length if cache is not None else 0), tokens.shape[1]
    if past + length > max_length:
        raise ConfigError(
            f"{past + length} positions were given; the model reads at most {max_length} at once.",
            "Cut the text into parts, or train with a larger model.max_length.",
        )
    if cache is not None:
        cache.make_room(length)
    return Visibility(length, tokens.device, past, documents)
