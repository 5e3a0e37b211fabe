"""Why an input is not read: a stable code and one sentence that is safe to log.

The sentence holds neither a path nor a value of the file's: both may name a patient. Who logs a refusal adds what its
own rules allow. For the same reason refusals are raised ``from None``: other libraries quote values in their messages.
"""

from __future__ import annotations

from enum import StrEnum

from msrf_monai.errors import DataError

__all__ = ["RefusalCode", "RefusedInput"]


class RefusalCode(StrEnum):
    """What is wrong, in one word that never changes its meaning from version to version."""

    # the file itself
    MISSING = "missing"
    PERMISSION_DENIED = "permission_denied"
    LINK_LOOP = "link_loop"
    LINK_OUTSIDE = "link_outside"
    NOT_REGULAR_FILE = "not_regular_file"
    EMPTY_FILE = "empty_file"
    TOO_LARGE = "too_large"
    IO_ERROR = "io_error"
    CHANGED = "changed"
    # what it is
    ARCHIVE = "archive"
    UNKNOWN_FORMAT = "unknown_format"
    NOT_DICOM = "not_dicom"
    NOT_AN_IMAGE = "not_an_image"
    UNSUPPORTED = "unsupported"
    # what its header says
    BAD_FILE_META = "bad_file_meta"
    NO_TRANSFER_SYNTAX = "no_transfer_syntax"
    BAD_TRANSFER_SYNTAX = "bad_transfer_syntax"
    WRONG_TRANSFER_SYNTAX = "wrong_transfer_syntax"
    UNREADABLE = "unreadable"
    BAD_HEADER = "bad_header"
    # limits
    TOO_MANY_PIXELS = "too_many_pixels"
    TOO_MANY_FRAMES = "too_many_frames"
    INFLATE_BOMB = "inflate_bomb"
    CODESTREAM_SIZE = "codestream_size"
    # the pixels
    TRUNCATED = "truncated"
    LENGTH_MISMATCH = "length_mismatch"
    BAD_ENCAPSULATION = "bad_encapsulation"
    DECODER_MISSING = "decoder_missing"
    DECODE_FAILED = "decode_failed"
    LUT_FAILED = "lut_failed"
    NOT_FINITE = "not_finite"
    # pictures that need a decision
    HAS_ALPHA = "has_alpha"
    CMYK = "cmyk"
    # series
    NOT_A_VOLUME = "not_a_volume"
    DUPLICATE_UID = "duplicate_uid"


class RefusedInput(DataError):  # noqa: N818 (a refusal is the rule working, not a fault)
    """An input that is not read.

    Args:
        code: the stable reason.
        sentence: one sentence for people: what was found, what was expected, what to do; no path, no patient's data.
    """

    def __init__(self, code: RefusalCode, sentence: str) -> None:
        super().__init__(f"{code.value}: {sentence}")
        self.code = code
        self.sentence = sentence

    def __reduce__(self) -> tuple[type[RefusedInput], tuple[RefusalCode, str]]:
        return type(self), (self.code, self.sentence)
