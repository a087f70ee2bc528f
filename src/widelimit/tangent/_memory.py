"""What was made before, by key: the results used last."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Any


class Memory:
    """The programs and choices used last."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.found: OrderedDict[Hashable, Any] = OrderedDict()

    def get(self, key: Hashable | None, make: Any) -> Any:
        """What was made for this key, or is made now."""
        if key is None:
            return make()
        if key not in self.found:
            self.found[key] = make()
            if len(self.found) > self.most:
                self.found.popitem(last=False)
        self.found.move_to_end(key)
        return self.found[key]
