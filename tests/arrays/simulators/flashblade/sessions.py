"""Sessions of a simulated FlashBlade: opened with an API token, dead after some idle time, limited in number and rate."""

import time
import uuid


class Sessions:
    """`idle_seconds`, `most_sessions` and `logins_per_second` come from the array's settings."""

    def __init__(self, settings, api_token):
        self.settings = settings
        self.api_token = api_token
        self.used = {}
        self.recent = []
        self.issued = []
        self.counts = {"logins": 0, "refused_logins": 0, "limited_logins": 0, "logouts": 0}

    def living(self):
        oldest = time.time() - self.settings["idle_seconds"]
        self.used = {token: when for token, when in self.used.items() if when >= oldest}
        return self.used

    def too_fast(self):
        """Whether this login is above the rate; counts it."""
        now = time.time()
        self.recent = [when for when in self.recent if when > now - 1]
        limit = self.settings["logins_per_second"]
        if limit and len(self.recent) >= limit:
            self.counts["limited_logins"] += 1
            return True
        self.recent.append(now)
        return False

    def open(self, api_token):
        """A new session's token; None when the API token is wrong or there are too many sessions."""
        if api_token != self.api_token or len(self.living()) >= self.settings["most_sessions"]:
            self.counts["refused_logins"] += 1
            return None
        token = str(uuid.uuid4())
        self.issued.append(token)
        self.used[token] = time.time()
        self.counts["logins"] += 1
        return token

    def admits(self, token):
        """Whether the session lives; using it keeps it alive."""
        if token not in self.living():
            return False
        self.used[token] = time.time()
        return True

    def close(self, token):
        if self.used.pop(token, None) is not None:
            self.counts["logouts"] += 1

    def expire(self):
        """All sessions end now."""
        self.used.clear()
