"""What stops a command of the controller; the text names the thing, the value and the way out."""


class ControllerError(Exception):
    """A mistake in a file, a command or the state directory that its owner can put right."""


class StoreError(ControllerError):
    """The database does not open, or is damaged."""


class ImageError(ControllerError):
    """An archive that is not an image that can be published."""


class SpecificationError(ControllerError):
    """A service file that does not say what may run."""


class RepositoryInUse(ControllerError):
    """Another process writes into the repository."""
