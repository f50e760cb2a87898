"""Who may connect, publish, subscribe and read: the hooks of `Access` and the files of `AccessFiles` together."""

from __future__ import annotations

from collections.abc import Callable

from broker import acl
from broker.passwords import Users
from broker.session import Identity
from broker.settings import Access, AccessFiles, anywhere


class Guard:
    """Asked by the broker, before it does anything; both the hooks and the files must agree."""

    def __init__(self, access: Access, files: AccessFiles | None = None) -> None:
        self._access = access
        self._files = files or AccessFiles(anonymous=True)
        self._users: Users | None = None
        self._acl: acl.AccessList | None = None
        self.reload()

    @property
    def open(self) -> bool:
        """Whether everybody may everything."""
        return self._access == Access() and self._users is None and self._acl is None and self._files.anonymous

    def reload(self) -> None:
        """Read the files again. Raises BrokerError, and then everything stays as it was."""
        users = Users.read(self._files.users) if self._files.users else None
        self._acl = acl.read(self._files.acl) if self._files.acl else None
        self._users = users

    # --- who --------------------------------------------------------------------------------------------------

    def names(self, client_id: str, username: str | None) -> Identity | None:
        """The client's identity; its id is empty where one is to be assigned. None: the two names must agree."""
        if self._files.username_is_client_id:
            if not username or client_id not in ("", username):
                return None
            client_id = username
        return Identity(client_id, username)

    def check(self, identity: Identity, password: bytes | None, *, certified: bool) -> bool | Callable[[], bool]:
        """Whether the client is who it says, or a slow function that tells, to be called in a thread.

        `certified`: its certificate says so already.
        """
        if not certified and not self._access.authenticate(*identity, password):
            return False
        if certified or (identity.username is None and self._files.anonymous):
            return True
        if self._users is None:
            return self._files.anonymous  # there are no passwords to know anybody by
        if identity.username is None or password is None:
            return False
        users, username, secret = self._users, identity.username, password
        return lambda: users.accept(username, secret)

    def knows(self, identity: Identity, *, certified: bool) -> bool:
        """Whether the client would still be let in, now that the files were read again."""
        if certified or identity.username is None or self._users is None:
            return certified or self._files.anonymous or self._users is None
        return identity.username in self._users

    # --- what -------------------------------------------------------------------------------------------------

    @property
    def filters_reading(self) -> bool:
        """Whether `may_read` can ever say no."""
        return self._acl is not None or self._access.may_read is not anywhere

    def may_publish(self, identity: Identity, topic: str) -> bool:
        if not self._access.may_publish(identity.client_id, topic):
            return False
        return self._acl is None or self._acl.may(identity, acl.WRITE, topic)

    def may_subscribe(self, identity: Identity, topic_filter: str) -> bool:
        if not self._access.may_subscribe(identity.client_id, topic_filter):
            return False
        return self._acl is None or self._acl.may_subscribe(identity, topic_filter)

    def may_read(self, identity: Identity, topic: str) -> bool:
        if not self._access.may_read(identity.client_id, topic):
            return False
        return self._acl is None or self._acl.may(identity, acl.READ, topic)
