"""Logins of a simulated WEKA cluster: short access tokens, refresh tokens that are used up by use."""

import secrets
import time


class Tokens:
    """Hands out and checks tokens; lifetimes come from the array's settings, in seconds."""

    def __init__(self, settings):
        self.settings = settings
        self.access = {}
        self.refresh = {}
        self.issued = []
        self.counts = {"logins": 0, "refused_logins": 0, "refreshes": 0, "refused_refreshes": 0}

    def issue(self):
        access, refresh = "access-" + secrets.token_hex(24), "refresh-" + secrets.token_hex(24)
        self.issued += [access, refresh]
        now = time.time()
        self.access[access] = now + self.settings["access_seconds"]
        self.refresh[refresh] = now + self.settings["refresh_seconds"]
        return {
            "access_token": access,
            "token_type": "Bearer",
            "expires_in": self.settings["access_seconds"],
            "refresh_token": refresh,
            "password_change_required": self.settings["password_change_required"],
        }

    def renew(self, refresh):
        """New tokens for a refresh token, which is void afterwards; None when it is not good."""
        end = self.refresh.pop(refresh, 0)
        good = end > time.time()
        self.counts["refreshes" if good else "refused_refreshes"] += 1
        return self.issue() if good else None

    def admits(self, authorization):
        scheme, _, token = (authorization or "").partition(" ")
        return scheme == "Bearer" and self.access.get(token, 0) > time.time()

    def expire(self, also_refresh=False):
        """All access tokens end now."""
        self.access.clear()
        if also_refresh:
            self.refresh.clear()
