"""Texts are the bytes of their tokens; stops end them at once, wherever tokens begin and end."""

from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from hydragen_tree.model.tiny import MODEL_DIR
from hydragen_tree.sample.endings import Endings
from hydragen_tree.sample.stops import Automaton, StopTable
from hydragen_tree.sample.text import Detokenizer
from hydragen_tree.sample.token_bytes import TokenBytes

_SPECIAL = ("<s>", "</s>", "<|im_end|>")
_WORDS = ("▁", "▁▁▁▁", "▁x", "return", "▁return", "def", "Q", ":", ":▁", "a", "b", "世", "▁é", ",")


def _wrapped(backend: Tokenizer) -> Any:
    backend.add_special_tokens([AddedToken(text, special=True) for text in _SPECIAL])
    backend.add_tokens([AddedToken("  added", special=False)])
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>")


def llama() -> Any:
    """Byte-fallback with Llama 2's normaliser, which added tokens of its kind go through too."""
    tokenizer = byte_fallback()
    normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.backend_tokenizer.normalizer = normalizer
    tokenizer.add_tokens([AddedToken("\n", normalized=False), "<tool>"])
    tokenizer.add_tokens([AddedToken("<|special|>", special=True, normalized=True)])
    return tokenizer


def byte_level() -> Any:
    """GPT-2's alphabet, with added tokens whose characters are no bytes."""
    alphabet = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "Ġa", "ĊĊ"]
    backend = Tokenizer(models.BPE({piece: i for i, piece in enumerate(alphabet)}, []))
    backend.decoder = decoders.ByteLevel()
    backend.add_tokens(["<tool>", "世界", "  ", "\n\n\n"])
    return _wrapped(backend)


def byte_level_of_gguf() -> Any:
    """As transformers makes it of a GGUF file: SmolLM2's, for one."""
    alphabet = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "Ġa", "ĊĊ", "Ġreturn"]
    backend = Tokenizer(models.BPE({piece: i for i, piece in enumerate(alphabet)}, []))
    steps = decoders.ByteFallback(), decoders.Fuse(), decoders.Replace("▁", " ")
    backend.decoder = decoders.Sequence([*steps, decoders.ByteLevel()])
    return _wrapped(backend)


def byte_fallback(*, strips: bool = True) -> Any:
    """As Llama 2's and CodeLlama's; without the strip as Gemma's."""
    pieces = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), *_WORDS]
    vocabulary = {piece: i for i, piece in enumerate(pieces)}
    model = models.BPE(vocabulary, [], unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    backend = Tokenizer(model)
    strip = [decoders.Strip(" ", 1, 0)] if strips else []
    replace = decoders.Replace("▁", " ")
    backend.decoder = decoders.Sequence([replace, decoders.ByteFallback(), decoders.Fuse(), *strip])
    return _wrapped(backend)


def metaspace() -> Any:
    backend = Tokenizer(models.BPE({piece: i for i, piece in enumerate(_WORDS)}, []))
    backend.decoder = decoders.Metaspace()
    return _wrapped(backend)


def word_piece() -> Any:
    pieces = ("[UNK]", "return", "##s", "x", "##:", ".", "'", "n't", "do", "Q")
    model = models.WordPiece({p: i for i, p in enumerate(pieces)}, unk_token="[UNK]")
    backend = Tokenizer(model)
    backend.decoder = decoders.WordPiece()
    return _wrapped(backend)


def end_of_word() -> Any:
    """GPT-1's: the last token of a text loses a space, so that no table is right."""
    backend = Tokenizer(models.BPE({"a</w>": 0, "b</w>": 1, "ab": 2, "c</w>": 3}, []))
    backend.decoder = decoders.BPEDecoder()
    return _wrapped(backend)


def shipped() -> Any:
    return AutoTokenizer.from_pretrained(MODEL_DIR)


TABLED = {
    "byte-fallback": byte_fallback(),
    "no-strip": byte_fallback(strips=False),
    "llama": llama(),
    "byte-level": byte_level(),
    "byte-level of GGUF": byte_level_of_gguf(),
    "metaspace": metaspace(),
    "word-piece": word_piece(),
    "shipped": shipped(),
}


DETOKENIZERS = {name: Detokenizer(t, len(t)) for name, t in TABLED.items()}


def ids(tokenizer: Any, *pieces: str) -> np.ndarray:
    return np.array([tokenizer.get_vocab()[piece] for piece in pieces], np.int32)


def drawn(endings: Endings, prompt: np.ndarray, tokens: np.ndarray) -> tuple[int, str | None, str]:
    """Draws these tokens until they end; how many that took, and the ending."""
    state = np.array([endings.start(0, prompt)])
    for count, token in enumerate(tokens.tolist(), start=1):
        state = endings.advance(state, np.array([token]))
        reason, text = endings.ending(0, prompt, tokens[:count])
        if endings.table is not None:
            assert (state[0] < 0) == (reason is not None)
        if reason is not None:
            assert state[0] < 0
            return count, reason, text
    return len(tokens), None, endings.ending(0, prompt, tokens)[1]


def test_newline_after_a_prompt_that_ends_in_bytes() -> None:
    tokenizer = byte_fallback()
    prompt = ids(tokenizer, "<s>", *(f"<0x{byte:02X}>" for byte in "# 世界".encode()))
    answer = ids(tokenizer, "<0x0A>", "▁▁▁▁", "return", "▁x")
    detokenizer = Detokenizer(tokenizer, len(tokenizer))
    assert detokenizer.text(prompt, answer) == "\n    return x"
    endings = Endings(detokenizer, [["\n"]], [], [])
    assert drawn(endings, prompt, answer) == (1, "stop", "")


def test_only_bytes_that_are_no_character_are_replaced() -> None:
    tokenizer = byte_fallback()
    detokenizer = Detokenizer(tokenizer, len(tokenizer))
    answer = ids(tokenizer, "<0x0A>", "<0xE4>", "<0xB8>", "a", "<0xE4>", "<0xB8>", "<0x96>")
    assert detokenizer.text(ids(tokenizer, "a"), answer) == "\n\ufffda世"


@pytest.mark.parametrize("first", ["Q", "<s>"])
def test_a_stop_that_ends_in_a_space_ends_at_once(first: str) -> None:
    tokenizer = byte_fallback()
    endings = Endings(Detokenizer(tokenizer, len(tokenizer)), [["Q: "]], [], [])
    answer = ids(tokenizer, "a", "Q", ":▁", "▁x", "a", "a", "a", "a")
    assert drawn(endings, ids(tokenizer, first), answer) == (3, "stop", "a")


def test_first_space_is_lost_only_where_the_prompt_is_special_tokens() -> None:
    tokenizer = byte_fallback()
    detokenizer = Detokenizer(tokenizer, len(tokenizer))
    answer = ids(tokenizer, "▁return", "▁x")
    assert detokenizer.text(ids(tokenizer, "<s>"), answer) == "return x"
    assert detokenizer.text(ids(tokenizer, "<s>", "a"), answer) == " return x"
    assert detokenizer.text(ids(tokenizer, "a", "<|im_end|>"), answer) == " return x"


def test_special_tokens_named_as_stops() -> None:
    tokenizer = byte_fallback()
    detokenizer = Detokenizer(tokenizer, len(tokenizer))
    prompt, answer = ids(tokenizer, "a"), ids(tokenizer, "a", "b", "<|im_end|>", "<0x0A>", "a")
    for stop, count in [("<|im_end|>", 3), ("b<|im_end|>", 3), ("<|im_end|>\n", 4)]:
        endings = Endings(detokenizer, [[stop]], [], [])
        text = "a" if stop.startswith("b") else "ab"
        assert drawn(endings, prompt, answer) == (count, "stop", text)
    unseen = Endings(detokenizer, [["b\n"]], [], [])  # as the text has it
    assert drawn(unseen, prompt, answer) == (4, "stop", "a")


def test_end_and_stop_tokens() -> None:
    tokenizer = byte_fallback()
    eos, comma = int(ids(tokenizer, "</s>")[0]), int(ids(tokenizer, ",")[0])
    endings = Endings(Detokenizer(tokenizer, len(tokenizer)), [[]], [eos], [comma])
    prompt = ids(tokenizer, "a")
    assert drawn(endings, prompt, ids(tokenizer, "a", "</s>", "b")) == (2, "eos", "a")
    assert drawn(endings, prompt, ids(tokenizer, "a", ",", "b")) == (2, "stop", "a")


def test_several_stop_sets_do_not_mix() -> None:
    tokenizer = byte_fallback()
    endings = Endings(Detokenizer(tokenizer, len(tokenizer)), [["ab"], [], ["b"]], [], [])
    prompt = ids(tokenizer, "Q")
    states = np.array([endings.start(i, prompt) for i in range(3)])
    a, b = ids(tokenizer, "a", "b").astype(np.int64)
    assert (endings.advance(states, np.full(3, a)) >= 0).all()
    after = endings.advance(endings.advance(states, np.full(3, a)), np.full(3, b))
    assert after.tolist()[::2] == [-2, -2]  # at the first byte of the token
    assert after[1] >= 0


def test_a_tokenizer_without_a_table_is_decoded() -> None:
    tokenizer = end_of_word()
    assert TokenBytes.of(tokenizer, len(tokenizer)) is None
    detokenizer = Detokenizer(tokenizer, len(tokenizer))
    prompt, answer = ids(tokenizer, "a</w>"), ids(tokenizer, "b</w>", "ab", "c</w>", "a</w>")
    assert detokenizer.text(prompt, answer) == " b abc a"
    endings = Endings(detokenizer, [["abc", "<|im_end|>"]], [], [])
    assert drawn(endings, prompt, answer) == (3, "stop", " b ")
    assert drawn(endings, prompt, ids(tokenizer, "b</w>", "<|im_end|>")) == (2, "stop", " b")


def test_a_decoder_that_disagrees_has_no_table() -> None:
    tokenizer = shipped()
    tokenizer.decode = lambda tokens, **_: "x" * len(tokens)
    assert TokenBytes.of(tokenizer, len(tokenizer)) is None


def test_ids_beyond_the_tokenizer_have_no_bytes() -> None:
    tokenizer = shipped()
    detokenizer = Detokenizer(tokenizer, len(tokenizer) + 5)
    beyond = np.array([len(tokenizer) + 4], np.int32)
    assert detokenizer.text(beyond, beyond) == ""


@pytest.mark.parametrize("name", TABLED)
@given(data=st.data())
def test_text_is_what_decoding_adds(name: str, data: st.DataObject) -> None:
    """Where the text is valid UTF-8: decoders differ in what they put for other bytes."""
    tokenizer = TABLED[name]
    token = st.integers(0, len(tokenizer) - 1)
    prompt = np.array(data.draw(st.lists(token, min_size=1, max_size=6)), np.int32)
    answer = np.array(data.draw(st.lists(token, max_size=12)), np.int32)
    detokenizer = DETOKENIZERS[name]
    text, table = detokenizer.text(prompt, answer), detokenizer.table
    assert table is not None
    whole = np.append(prompt, answer).astype(np.int32)
    for part in (prompt, whole):
        try:
            b"".join(table.pieces(part, is_open=False)).decode()
        except UnicodeDecodeError:
            return
    before = tokenizer.decode(prompt.tolist(), skip_special_tokens=True)
    assert before + text == tokenizer.decode(whole.tolist(), skip_special_tokens=True)


_FEW = st.binary(min_size=1, max_size=4).map(lambda word: bytes(byte % 3 for byte in word))


@given(words=st.lists(_FEW, max_size=5), data=st.binary(max_size=40))
def test_automaton_finds_what_find_finds(words: list[bytes], data: bytes) -> None:
    data = bytes(byte % 3 for byte in data)
    found = [data.find(word) + len(word) for word in words if word in data]
    state = Automaton(words).read(0, data)
    assert state == -1 - min(found) if found else state >= 0


@given(stop_sets=st.lists(st.lists(st.text("ab", min_size=1), max_size=4), min_size=1, max_size=3))
def test_the_whole_table_is_what_tokens_do_byte_by_byte(stop_sets: list[list[str]]) -> None:
    pieces = [b"", *(bytes(word) for n in (1, 2, 3, 4) for word in product(b"abc", repeat=n))]
    opens = np.array([bool(piece) for piece in pieces])
    table = StopTable(TokenBytes(pieces, pieces, opens, {}), stop_sets, [[]] * len(stop_sets))
    expected: list[list[int]] = []
    for stops in stop_sets:
        automaton, begun = Automaton([stop.encode() for stop in stops]), len(expected) + 1
        read = [[automaton.read(s, piece) for piece in pieces] for s in range(automaton.n_states)]
        rows = [[to if to < 0 else to + begun for to in row] for row in read]
        expected += [[begun - 1, *rows[0][1:]], *rows]
    np.testing.assert_array_equal(table.rows(), expected)


@pytest.mark.parametrize("name", TABLED)
@given(data=st.data())
def test_table_ends_where_the_text_first_holds_a_stop(name: str, data: st.DataObject) -> None:
    tokenizer = TABLED[name]
    chosen = st.sampled_from(list(tokenizer.get_vocab().values())[:64])
    stops = data.draw(st.lists(st.text("abQ:x \nret.", min_size=1, max_size=3), max_size=4))
    prompt = np.array(data.draw(st.lists(chosen, min_size=1, max_size=3)), np.int32)
    answer = np.array(data.draw(st.lists(chosen, min_size=1, max_size=20)), np.int32)
    detokenizer = DETOKENIZERS[name]
    endings = Endings(detokenizer, [stops], [], [])
    text = ""
    for count in range(1, answer.size + 1):
        text = detokenizer.text(prompt, answer[:count])
        if found := [text.find(stop) for stop in stops if stop in text]:
            expected = count, "stop", text[: min(found)]
            break
    else:
        expected = answer.size, None, text
    assert drawn(endings, prompt, answer) == expected
