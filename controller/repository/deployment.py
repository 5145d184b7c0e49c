"""From a service file to a signed specification in the database."""

from __future__ import annotations

from dataclasses import replace

from controller.authority import Authority, sign_service
from controller.errors import SpecificationError
from controller.repository.publication import find
from controller.repository.service_file import ServiceFile
from controller.store import Store
from gateway.protocol import codec, keys
from gateway.protocol.messages import ServiceSpec


def deploy(store: Store, authority: Authority, wanted: ServiceFile, now: float) -> tuple[int, bool]:
    """The version that is to run, and whether that is news: the same file again changes nothing.

    Raises ControllerError: the image is not published, the version was used, the provider has no key.
    """
    publication = find(store, wanted.image)
    if publication is None or not publication.image:
        known = ", ".join(row.reference for row in store.publications()) or "nothing yet"
        what = "is not published" if publication is None else "is a file, not an image"
        raise SpecificationError(
            f"image {wanted.image!r} {what}; `picasso-controller publish` first (published: {known})"
        )
    last = store.last_version(wanted.name)
    spec = wanted.specification(wanted.version or last + 1, publication)
    active = next((row for row in store.services() if row.name == wanted.name), None)
    if active is not None and (wanted.version is None or wanted.version == active.version):
        running = codec.decode(ServiceSpec, keys.parse(active.wire).content)
        if replace(spec, version=running.version) == running:
            return running.version, False
    if wanted.version is not None and wanted.version <= last:
        raise SpecificationError(
            f"service {wanted.name!r} had version {last} already; leave `version` out, or write more than that"
        )
    wire = sign_service(authority.state_dir, authority.network, spec)
    authority.trust.verify(wire)
    store.deploy(wanted.name, spec.version, wanted.provider, wire, now)
    return spec.version, True
