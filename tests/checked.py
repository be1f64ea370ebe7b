"""The checker of ``make test-all``: beartype, to which an int is as good as a float."""

from __future__ import annotations

from beartype import BeartypeConf, beartype

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
