"""Tokenizers: bytes, BPE trained on the corpus, any tokenizer.json, SentencePiece."""

from ourospec.data.tokenizers.base import Tokenizer
from ourospec.data.tokenizers.byte import ByteTokenizer, ByteTokenizerConfig
from ourospec.data.tokenizers.choose import TokenizerConfig, build_tokenizer, load_tokenizer, stamp_tokenizer
from ourospec.data.tokenizers.json_file import BpeConfig, JsonTokenizer, TokenizerFile
from ourospec.data.tokenizers.sentencepiece_file import SentencePieceFile, SentencePieceTokenizer

__all__ = [
    "BpeConfig",
    "ByteTokenizer",
    "ByteTokenizerConfig",
    "JsonTokenizer",
    "SentencePieceFile",
    "SentencePieceTokenizer",
    "Tokenizer",
    "TokenizerConfig",
    "TokenizerFile",
    "build_tokenizer",
    "load_tokenizer",
    "stamp_tokenizer",
]
