"""Lines on their way to an MQTT broker that may be away. Needs paho-mqtt, and nothing of posesdk."""

import sys
import threading
import time
from collections import deque
from typing import Any

IN_FLIGHT = 20
"""Lines that paho holds and the broker has not taken yet, at most; paho's own window, and so the order is kept."""
TURN = 0.05
"""Seconds between two looks at what paho does not tell."""


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


class Outbox:
    """Lines on their way to a broker. Nobody waits for it: when it is full, the oldest line makes room.

    `sent` lines were taken (by the broker; with QoS 0 by the network), `dropped` ones never left, `lost` ones were on
    their way when the connection broke (QoS 0 only).
    """

    def __init__(self, client: Any, topic: str, *, qos: int, size: int) -> None:
        self.sent = self.dropped = self.lost = 0
        self._client, self._topic, self._qos = client, topic, qos
        self._lines: deque[str] = deque()
        self._size, self._deadline, self._online = size, float("inf"), False
        self._changed = threading.Condition()
        client.will_set(f"{topic}/status", "offline", qos=1, retain=True)
        client.on_connect, client.on_disconnect = self._on_connect, self._on_disconnect
        client.on_publish = lambda *_: self._notify()
        client.loop_start()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def put(self, line: str) -> None:
        with self._changed:
            if len(self._lines) >= self._size:
                self._lines.popleft()
                self.dropped += 1
            self._lines.append(line)
            self._changed.notify()

    def close(self, patience: float) -> None:
        """Waits at most `patience` seconds for what is still on its way, and says goodbye."""
        self._deadline = time.monotonic() + patience
        self._thread.join()
        self.dropped += len(self._lines)
        if self._online:
            self._client.publish(f"{self._topic}/status", "offline", qos=1, retain=True)
        self._client.disconnect()
        with self._changed:
            self._changed.wait_for(lambda: not self._online, timeout=2)

    def _work(self) -> None:
        flying: deque[Any] = deque()
        while (flying or self._lines or self._deadline == float("inf")) and time.monotonic() < self._deadline:
            with self._changed:
                if not (self._online and self._lines and len(flying) < IN_FLIGHT):
                    self._changed.wait(TURN)
                free = self._online and self._lines and len(flying) < IN_FLIGHT
                line = self._lines.popleft() if free else None
            if line is not None:  # outside of the lock: paho calls back with locks of its own
                flying.append(self._client.publish(f"{self._topic}/poses", line, qos=self._qos))
            flying = deque(info for info in flying if not self._settled(info))
        self.lost += len(flying)

    def _settled(self, info: Any) -> bool:
        try:
            done: bool = info.is_published()
        except RuntimeError:  # as paho says that the connection broke
            self.lost += 1
            return True
        self.sent += done
        return done

    def _on_connect(self, client: Any, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        if reason.is_failure:
            say(f"the broker refuses: {reason}; see MQTT_USER and MQTT_PASSWORD")
            return
        say("the broker is there")
        client.publish(f"{self._topic}/status", "online", qos=1, retain=True)
        self._online = True
        self._notify()

    def _on_disconnect(self, _client: Any, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        if self._online and self._deadline == float("inf"):
            say(f"the broker is gone ({reason}); trying to reach it again")
        self._online = False
        self._notify()

    def _notify(self) -> None:
        with self._changed:
            self._changed.notify_all()
