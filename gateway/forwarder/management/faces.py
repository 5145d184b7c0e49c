"""The module faces: links to other forwarders, made and removed while the gateway runs."""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Iterator, Mapping, Sequence
from typing import Protocol
from urllib.parse import urlsplit

from gateway.forwarder.faces.base import Face
from gateway.forwarder.faces.link import MIN_MTU_BYTES
from gateway.forwarder.forwarder import Forwarder
from gateway.forwarder.management import encoding, face_status
from gateway.forwarder.management.encoding import ControlParameters, text
from gateway.forwarder.management.face_status import FLAG_NAMES, FLAGS, ON_DEMAND, PERMANENT
from gateway.forwarder.management.module import Command, Dataset, Request, no_arguments
from gateway.forwarder.management.status_codes import (
    BAD_PARAMETERS,
    CONFLICT,
    FAILED,
    FORBIDDEN,
    NOT_ACCEPTABLE,
    NOT_FOUND,
    NOT_SUPPORTED,
    Refused,
)
from gateway.forwarder.packet import DecodeError
from gateway.protocol import names
from gateway.protocol.names import Name, tlv

_SCHEMES = {"tcp4": 4, "tcp6": 6, "udp4": 4, "udp6": 6}
_CHANNEL_STATUS = 0x82
_LOCAL_FIELDS, _RELIABILITY, _MARKING = 1, 2, 4
# Above this no datagram goes.
MTU_MAX_BYTES = 65_507


class FaceRefused(Exception):
    """A face that can't be made or removed; the text says why and what to do."""


class FaceControl(Protocol):
    """What makes and removes faces for management (gateway.forwarder.management.face_control.ManagedFaces)."""

    def channels(self) -> Sequence[str]:
        """The local URIs of the sockets that it listens on."""

    async def create(self, uri: str, mtu: int | None, is_reliable: bool) -> Face:
        """A face that is dialled again whenever it breaks; `mtu` is bytes of UDP payload. Raises FaceRefused."""

    def destroy(self, face: Face) -> None:
        """Raises FaceRefused."""


class FacesModule:
    """create, update, destroy, list, channels, query; without `control` faces are neither made nor removed."""

    def __init__(self, forwarder: Forwarder, control: FaceControl | None) -> None:
        self._forwarder, self._control = forwarder, control
        self.commands: Mapping[str, Command] = {
            "create": self._create,
            "update": self._update,
            "destroy": self._destroy,
        }
        self.datasets: Mapping[str, Dataset] = {"list": self._list, "channels": self._channels, "query": self._query}

    # --- commands

    def _create(self, request: Request) -> Awaitable[ControlParameters]:
        asked = request.parameters
        uri = _canonical(asked.uri)
        _check_switches(asked)
        if asked.persistency == ON_DEMAND:
            raise Refused(NOT_ACCEPTABLE, "a face that is created is persistent or permanent, not on demand")
        if (asked.persistency or 0) > PERMANENT:
            raise Refused(BAD_PARAMETERS, f"persistency {asked.persistency} is not known")
        if asked.mtu is not None and not MIN_MTU_BYTES <= asked.mtu <= MTU_MAX_BYTES:
            raise Refused(BAD_PARAMETERS, f"an MTU of {asked.mtu} is not from {MIN_MTU_BYTES} to {MTU_MAX_BYTES} bytes")
        if asked.local_uri is not None:
            raise Refused(NOT_ACCEPTABLE, "a LocalUri can't be chosen: a face starts from an address listened on")
        _check_new(uri, asked)
        if self._control is None:
            raise Refused(NOT_SUPPORTED, "this forwarder makes no faces on request")
        existing = next((face for face in self._forwarder.faces.values() if face.uri == uri), None)
        if existing is not None and face_status.persistency(existing) != ON_DEMAND:
            raise Refused(CONFLICT, f"face {existing.id} with remote URI {uri} exists", _description(existing))
        return self._make(self._control, uri, asked)

    async def _make(self, control: FaceControl, uri: str, asked: ControlParameters) -> ControlParameters:
        try:
            face = await control.create(uri, asked.mtu, _wants(asked, _RELIABILITY))
        except FaceRefused as error:
            raise Refused(FAILED, str(error)) from error
        return _description(face)

    def _update(self, request: Request) -> ControlParameters:
        asked = request.parameters
        face = self._forwarder.faces.get(asked.face_id or request.face.id)
        if face is None:
            raise Refused(NOT_FOUND, f"there is no face {asked.face_id}")
        _check_switches(asked)
        if asked.persistency is not None and asked.persistency != face_status.persistency(face):
            refusal = ControlParameters(persistency=asked.persistency)
            raise Refused(CONFLICT, "the persistency of a face can't be changed", refusal)
        if asked.mtu is not None and asked.mtu != face_status.mtu(face):
            refusal = ControlParameters(mtu=asked.mtu)
            raise Refused(CONFLICT, "the MTU of a face can't be changed; destroy it and create it with that", refusal)
        self._switch(face, asked)
        return ControlParameters(
            face_id=face.id,
            persistency=face_status.persistency(face),
            mtu=face_status.mtu(face),
            flags=face_status.flags(face),
        )

    def _switch(self, face: Face, asked: ControlParameters) -> None:
        """Turns local fields on and off; other features are as they are, and only asking for that is right."""
        flags, mask = asked.flags or 0, asked.mask or 0
        for bit, name in FLAGS.items():
            wanted = bool(flags & bit)
            if not mask & bit or wanted == getattr(face, name):
                continue
            if bit != _LOCAL_FIELDS or not face.is_local:
                refusal = ControlParameters(flags=flags & bit, mask=bit)
                raise Refused(CONFLICT, f"face {face.id} can't change its {FLAG_NAMES[bit]}", refusal)
            face.local_fields = wanted

    def _destroy(self, request: Request) -> ControlParameters:
        """A face that is not there is as good as destroyed."""
        face_id = request.parameters.face_id
        if not face_id:
            raise Refused(BAD_PARAMETERS, "a FaceId is missing")
        face = self._forwarder.faces.get(face_id)
        if face is not None:
            if face_status.persistency(face) == PERMANENT:
                raise Refused(FORBIDDEN, f"face {face_id} belongs to the gateway itself")
            if self._control is None:
                raise Refused(NOT_SUPPORTED, "this forwarder removes no faces on request")
            try:
                self._control.destroy(face)
            except FaceRefused as error:
                raise Refused(CONFLICT, str(error)) from error
        return ControlParameters(face_id=face_id)

    # --- datasets

    def _list(self, argument: Name) -> Iterator[bytes]:
        no_arguments(argument)
        return (face_status.encode_status(face) for face in list(self._forwarder.faces.values()))

    def _channels(self, argument: Name) -> Iterator[bytes]:
        no_arguments(argument)
        uris = self._control.channels() if self._control is not None else ()
        return (tlv(_CHANNEL_STATUS, text(encoding.LOCAL_URI, uri)) for uri in uris)

    def _query(self, argument: Name) -> Iterator[bytes]:
        parts = names.components(argument)
        if len(parts) != 1:
            raise Refused(BAD_PARAMETERS, "a query is one name component with a filter in it")
        try:
            wanted = face_status.decode_filter(names.value(parts[0]))
        except DecodeError as error:
            raise Refused(BAD_PARAMETERS, str(error)) from error
        found = [face for face in self._forwarder.faces.values() if wanted.fits(face)]
        return (face_status.encode_status(face) for face in found)


def _description(face: Face) -> ControlParameters:
    """What clients demand of the answer to faces/create, also where the face was there before."""
    return ControlParameters(
        face_id=face.id,
        uri=face.uri,
        local_uri=face.local_uri or "null://",
        persistency=face_status.persistency(face),
        mtu=face_status.mtu(face),
        flags=face_status.flags(face),
    )


def _wants(asked: ControlParameters, bit: int) -> bool:
    return bool((asked.flags or 0) & (asked.mask or 0) & bit)


def _check_new(uri: str, asked: ControlParameters) -> None:
    """Raises Refused where a new face can't have the switches that are asked for."""
    if _wants(asked, _LOCAL_FIELDS):
        raise Refused(CONFLICT, "local fields are for faces on this machine")
    is_datagram = uri.startswith("udp")
    if _wants(asked, _RELIABILITY) and not is_datagram:
        raise Refused(CONFLICT, "reliability is for UDP: a stream loses nothing")
    if (asked.mask or 0) & _MARKING and _wants(asked, _MARKING) != is_datagram:
        raise Refused(CONFLICT, "congestion marking is on for UDP and off for streams")


def _check_switches(asked: ControlParameters) -> None:
    if (asked.flags is None) != (asked.mask is None):
        raise Refused(BAD_PARAMETERS, "Flags and Mask go together")


def _canonical(uri: str | None) -> str:
    """The remote URI, if it is an address with a port; raises Refused."""
    if uri is None:
        raise Refused(BAD_PARAMETERS, "a Uri is missing")
    example = "it has the form tcp4://192.0.2.1:6363 or udp6://[2001:db8::1]:6363"
    scheme = face_status.scheme_of(uri)
    if scheme not in _SCHEMES:
        raise Refused(NOT_ACCEPTABLE, f"{scheme!r} is no kind of face here; {example}")
    try:
        parts = urlsplit(uri)
        port, address = parts.port, ipaddress.ip_address(parts.hostname or "")
    except ValueError as error:
        raise Refused(BAD_PARAMETERS, f"{uri!r} is no canonical face URI: {error}; {example}") from error
    if not port or address.version != _SCHEMES[scheme] or parts.path or parts.query or parts.fragment:
        raise Refused(BAD_PARAMETERS, f"{uri!r} is no canonical face URI; {example}")
    if address.is_multicast or address.is_unspecified:
        raise Refused(BAD_PARAMETERS, f"{uri!r} is nobody's address; {example}")
    return uri
