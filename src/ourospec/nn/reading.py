"""What every causal model of tokens does before its first layer."""

from torch import Tensor

from ourospec.errors import ConfigError
from ourospec.nn.cache import Cache
from ourospec.nn.visibility import Visibility


def look(tokens: Tensor, documents: Tensor | None, cache: Cache | None, max_length: int) -> Visibility:
    """Who sees whom among tokens [B, T], behind what the cache holds.

    Raises:
        ConfigError: more positions than the model or the cache was built for.
    """
    past: int | tuple[int, ...] = cache.past if cache is not None else 0
    length = tokens.shape[1]
    furthest = (cache.longest if cache is not None else 0) + length
    if furthest > max_length:
        raise ConfigError(
            f"{furthest} positions were given; the model reads at most {max_length} at once.",
            "Cut the text into parts, or train with a larger model.max_length.",
        )
    if cache is not None:
        cache.make_room(length)
    return Visibility(length, tokens.device, past, documents)
