"""Who may see which columns: roles with column rules, and one pure decision that every place asks which shows rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from pydantic import model_validator

from modelinscale.core.errors import SpecError, UsageError, did_you_mean
from modelinscale.core.personal import mask
from modelinscale.core.secrets import MASK
from modelinscale.core.settings import Settings


class Columns(Settings):
    """What a role sees of columns. Rules are by name; a column without a rule is shown, unless ``only`` is there."""

    only: tuple[str, ...] | None = None
    """Just these are shown. Left out: all that no other rule names."""
    mask: tuple[str, ...] = ()
    """Shown without what names a person: the domain of an e-mail address, four digits of a card."""
    deny: tuple[str, ...] = ()
    """Not shown at all."""

    @model_validator(mode="after")
    def _one_rule_a_column(self) -> Self:
        doubled = sorted((set(self.mask) & set(self.deny)) | (set(self.deny) & set(self.only or ())))
        if doubled:
            raise SpecError(f"{', '.join(doubled)}: shown and denied at once.", fix="Keep one of the two.")
        return self


class Role(Settings):
    """A role."""

    columns: Columns = Columns()
    """What it sees of columns."""


class Access(Settings):
    """Roles, and who has which. Without roles everybody sees everything that is stored.

    It rules what this program shows. Whoever can read the store's files can read what is in them: what nobody may see belongs under `data.personal`.
    """

    roles: dict[str, Role] = {}
    """Role -> its rules: ``{analyst: {columns: {deny: [card_id]}}}``."""
    users: dict[str, str] = {}
    """User -> role: ``{anna: analyst}``."""
    default: str | None = None
    """The role of everybody else; left out: they see no cell at all."""

    @model_validator(mode="after")
    def _roles_are_known(self) -> Self:
        named = {**{f"users.{user}": role for user, role in self.users.items()}, **({"default": self.default} if self.default is not None else {})}
        for place, role in named.items():
            if role not in self.roles:
                raise SpecError(f"`{place}` names the role {role!r}, which is not there.{did_you_mean(role, list(self.roles))}", fix="Name it under `roles`.")
        return self

    def named(self) -> dict[str, tuple[str, ...]]:
        """The columns that the rules of each role name: one that is not there protects nothing, a slip of the pen above all."""
        rules = {name: role.columns for name, role in self.roles.items()}
        return {name: tuple(dict.fromkeys((*(one.only or ()), *one.mask, *one.deny))) for name, one in rules.items()}

    def role_of(self, user: str) -> str | None:
        """A user's role; None: none, or there are no roles at all."""
        return self.users.get(user, self.default)


@dataclass(frozen=True)
class Allowed:
    """What somebody sees."""

    shown: tuple[str, ...]
    """Columns in full."""
    masked: tuple[str, ...]
    """Columns without what names a person."""
    hidden: tuple[str, ...]
    """Columns whose cells are not shown."""
    because: str

    def cell(self, column: str, value: Any) -> Any:
        """A cell as it may be shown; a column that was not asked about is hidden."""
        if value is None or column in self.shown:
            return value
        return mask(str(value)) if column in self.masked else MASK


def decide(access: Access, role: str | None, columns: Sequence[str]) -> Allowed:
    """What a role sees of columns. Raises `UsageError` for a role that is not there.

    >>> access = Access(roles={"analyst": Role(columns=Columns(deny=("card",), mask=("mail",)))}, default="analyst")
    >>> decide(access, "analyst", ["card", "mail", "x"]).hidden
    ('card',)
    """
    if not access.roles:
        return Allowed(tuple(columns), (), (), "model.yaml names no roles")
    if role is None:
        return Allowed((), (), tuple(columns), "no role")
    if role not in access.roles:
        raise UsageError(f"there is no role {role!r}.{did_you_mean(role, list(access.roles))}", fix=f"Roles: {', '.join(access.roles)}.")
    rules = access.roles[role].columns
    hidden = tuple(c for c in columns if c in rules.deny or (rules.only is not None and c not in rules.only and c not in rules.mask))
    masked = tuple(c for c in columns if c in rules.mask)
    return Allowed(tuple(c for c in columns if c not in hidden and c not in masked), masked, hidden, f"role {role}")
