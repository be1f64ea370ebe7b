"""One folder a kind of data; found by looking, nothing to register."""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
from typing import TYPE_CHECKING, Any

from core.runtime.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from core.contract import Domain


def domain_names() -> list[str]:
    """Names of the domains in this installation, sorted: the folders that hold a record."""
    found = (module.name for module in pkgutil.iter_modules(__path__) if module.ispkg)
    return sorted(name for name in found if importlib.util.find_spec(f"{__name__}.{name}.domain"))


def domain_line(name: str) -> str:
    """The one sentence a domain says of itself."""
    return (importlib.import_module(f"domains.{name}").__doc__ or "").strip()


def require_domain(name: str) -> str:
    """Return the name, or say which ones exist.

    Raises:
        UserError: If there is no such domain.
    """
    names = domain_names()
    if name not in names:
        raise UserError(
            f"domain: no domain {name!r}{did_you_mean(name, names)}; there are: {', '.join(names)}"
        )
    return name


def load_config(name: str) -> Any:
    """The settings class of a domain, without its heavy libraries."""
    return importlib.import_module(f"domains.{require_domain(name)}.config").CONFIG


def load_verbs(name: str) -> dict[str, Any]:
    """The verbs that only this domain has, without its heavy libraries."""
    module = f"domains.{require_domain(name)}.cli"
    return importlib.import_module(module).VERBS if importlib.util.find_spec(module) else {}


def load_domain(name: str) -> Domain[Any, Any, Any]:
    """The domain's record.

    Raises:
        UserError: If there is no such domain or a library of its extra is missing.
    """
    module = f"domains.{require_domain(name)}.domain"
    try:
        return importlib.import_module(module).DOMAIN
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] in ("core", "domains"):
            raise
        raise UserError(
            f"domain {name!r} needs {error.name!r}; install it: pip install 'latentworks[{name}]'"
        ) from error
