"""What may go wrong with something that came from outside; a peer's mistake, never ours."""


class ProtocolError(Exception):
    """A packet, message or signature from elsewhere that is not accepted; the text names the thing and the value."""


class MessageError(ProtocolError):
    """Bytes that are not the message they should be."""


class TrustError(ProtocolError):
    """A packet whose signature, signer or name is not acceptable."""


class UnknownKey(TrustError):
    """A packet signed by a key whose certificate is not known yet; `key_name` is where to fetch it."""

    def __init__(self, key_name: bytes, text: str) -> None:
        super().__init__(text)
        self.key_name = key_name


class BlobError(ProtocolError):
    """Bytes that do not match the digest they were asked by."""
