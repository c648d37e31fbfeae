"""Runs scenarios with the C++ client's library, as the package `rocketmq` brings it, and prints one JSON line for each.

    --namesrv HOST:PORT SCENARIO... [--together SCENARIO...]

The library has no call that makes topics: each comes into being with its first message.
"""

import json
import os
import sys
import threading
import time

from rocketmq.client import Message, Producer, PushConsumer, SendStatus
from rocketmq.ffi import MessageModel

DELIVERY_SECONDS_MAX = 60
# What a busy machine makes of "on time".
LATE_SECONDS_MAX = 20
# Silence after which nothing more is expected.
QUIET_SECONDS = 1

FIRST = "first"
FIRSTS = 16


def body_of(key):
    # The library takes bodies as strings that end with a zero.
    return (key + "\n" + "x" * (100 + len(key) * 37 % 900)).encode()


class Lacks(Exception):
    """The client cannot do what the scenario is about."""


class Inbox:
    """What came, by key, and when."""

    def __init__(self):
        self.lock = threading.Lock()
        self.arrivals = {}
        self.faults = []

    def take(self, message):
        key, body, times = message.keys.decode(), message.body, message.reconsume_times
        with self.lock:
            if key == FIRST:
                return
            if body != body_of(key):
                self.faults.append(key + " has another body than was sent")
            self.arrivals.setdefault(key, []).append((time.time(), times))

    def of(self, key):
        with self.lock:
            return list(self.arrivals.get(key, []))

    def keys(self):
        with self.lock:
            return set(self.arrivals)

    def count(self):
        with self.lock:
            return sum(len(times) for times in self.arrivals.values())

    def await_exactly(self, keys, limit=DELIVERY_SECONDS_MAX):
        """Each once, and nothing else."""
        self.await_all(keys, limit)
        within(limit, self.is_quiet, lambda: "messages keep coming")
        for key in keys:
            check(len(self.of(key)) == 1, "%s came %d times" % (key, len(self.of(key))))
        check(self.keys() == set(keys), "came though not owed: %s" % sorted(self.keys() - set(keys))[:5])

    def await_all(self, keys, limit=DELIVERY_SECONDS_MAX):
        within(limit, lambda: set(keys) <= self.keys(), lambda: "missing: %s" % sorted(set(keys) - self.keys())[:5])
        check(not self.faults, "; ".join(self.faults[:3]))

    def is_quiet(self):
        before = self.count()
        time.sleep(QUIET_SECONDS)
        return self.count() == before


class World:
    """The clients of one scenario, with names that no other run uses."""

    def __init__(self, namesrv, prefix):
        self.namesrv = namesrv
        self.prefix = prefix
        self.names = 0
        self.clients = []

    def name(self, kind):
        self.names += 1
        return "%s-%s-%d" % (self.prefix, kind, self.names)

    def producer(self):
        producer = Producer(self.name("producer"), timeout=10_000)
        producer.set_namesrv_addr(self.namesrv)
        producer.start()
        self.clients.append(producer)
        return producer

    def topic(self, producer):
        topic = self.name("topic")
        # So many that every broker gets one: consumers look for a topic's further brokers every half minute only.
        for _ in range(FIRSTS):
            send(producer, topic, FIRST)
        return topic

    def consumer(self, group, topic, take, expression="*", **options):
        consumer = PushConsumer(group, **options)
        consumer.set_namesrv_addr(self.namesrv)
        consumer.set_instance_name(self.name("instance"))
        consumer.subscribe(topic, take, expression)
        consumer.start()
        self.clients.append(consumer)
        return consumer


def check(holds, message):
    if not holds:
        raise AssertionError(message)


def within(seconds, condition, otherwise):
    deadline = time.time() + seconds
    while not condition():
        if time.time() > deadline:
            raise AssertionError("not within %d s: %s" % (seconds, otherwise()))
        time.sleep(0.02)


def message_of(topic, key, tag=None, level=0):
    message = Message(topic)
    message.set_keys(key)
    message.set_body(body_of(key))
    if tag:
        message.set_tags(tag)
    if level:
        message.set_delay_time_level(level)
    return message


def send(producer, topic, key, tag=None, level=0):
    result = producer.send_sync(message_of(topic, key, tag, level))
    check(result.status == SendStatus.OK, "status of a send: %s" % (result,))
    return result


def sync(world):
    producer = world.producer()
    topic = world.topic(producer)
    inbox = Inbox()
    world.consumer(world.name("group"), topic, inbox.take)
    keys = ["sync-%d" % i for i in range(2_000)]
    for key in keys:
        send(producer, topic, key)
    inbox.await_exactly(keys)
    return "%d sent, each received once" % len(keys)


def oneway(world):
    producer = world.producer()
    topic = world.topic(producer)
    inbox = Inbox()
    world.consumer(world.name("group"), topic, inbox.take)
    keys = ["oneway-%d" % i for i in range(500)]
    for key in keys:
        producer.send_oneway(message_of(topic, key))
    inbox.await_exactly(keys)
    return "%d sent, each received once" % len(keys)


def clustering(world):
    producer = world.producer()
    topic = world.topic(producer)
    group = world.name("group")
    all_of_them, shares = Inbox(), [Inbox(), Inbox()]

    def taker(own):
        def take(message):
            own.take(message)
            all_of_them.take(message)
        return take

    for own in shares:
        world.consumer(group, topic, taker(own))
    sent = []

    def both_have_some():
        for _ in range(20):
            sent.append("share-%d" % len(sent))
            send(producer, topic, sent[-1])
        return all(own.count() > 20 for own in shares)

    within(DELIVERY_SECONDS_MAX, both_have_some, lambda: "shares: %s" % [own.count() for own in shares])
    all_of_them.await_all(sent)
    return "%d messages, shares %s" % (len(sent), [own.count() for own in shares])


def broadcast(world):
    producer = world.producer()
    topic = world.topic(producer)
    group = world.name("group")
    inboxes = [Inbox(), Inbox()]
    for inbox in inboxes:
        world.consumer(group, topic, inbox.take, message_model=MessageModel.BROADCASTING)
    # A broadcasting consumer begins at the end of each queue, once it has it.
    probes = []

    def both_listen_everywhere():
        probes.append(["probe-%d-%d" % (len(probes), i) for i in range(16)])
        for key in probes[-1]:
            send(producer, topic, key)
        time.sleep(1)
        return all(set(probes[-1]) <= inbox.keys() for inbox in inboxes)

    within(DELIVERY_SECONDS_MAX, both_listen_everywhere, lambda: "a consumer gets nothing of some queue")
    keys = ["broadcast-%d" % i for i in range(300)]
    for key in keys:
        send(producer, topic, key)
    for inbox in inboxes:
        inbox.await_all(keys)
        check(all(len(inbox.of(key)) == 1 for key in keys), "a message came twice to one consumer")
    return "%d messages, each received once by each of two" % len(keys)


def tag_filter(world):
    producer = world.producer()
    topic = world.topic(producer)
    inbox = Inbox()
    world.consumer(world.name("group"), topic, inbox.take, "TagA || Aa")
    tags = ["TagA", "TagB", "Aa", "BB"]
    for i in range(400):
        send(producer, topic, "tag-%d" % i, tags[i % 4])
    wanted = ["tag-%d" % i for i in range(400) if tags[i % 4] in ("TagA", "Aa")]
    inbox.await_exactly(wanted)
    return "%d of 400 messages" % len(wanted)


def ordered(world):
    producer = world.producer()
    topic = world.topic(producer)
    inbox, order, lock = Inbox(), {}, threading.Lock()

    def take(message):
        inbox.take(message)
        if message.keys.decode() != FIRST:
            _, key, number = message.keys.decode().split("-")
            with lock:
                order.setdefault(key, []).append(int(number))

    world.consumer(world.name("group"), topic, take, orderly=True)
    keys = ["ordered-%d-%d" % (i % 10, i // 10) for i in range(500)]
    for key in keys:
        producer.send_orderly(message_of(topic, key), int(key.split("-")[1]))
    inbox.await_exactly(keys)
    check(all(numbers == sorted(numbers) for numbers in order.values()), "order: %s" % order)
    return "%d messages of 10 keys in order" % len(keys)


def resume(world):
    producer = world.producer()
    topic = world.topic(producer)
    group = world.name("group")
    first, second = Inbox(), Inbox()
    consumer = world.consumer(group, topic, first.take)
    early = ["early-%d" % i for i in range(300)]
    for key in early:
        send(producer, topic, key)
    first.await_exactly(early)
    # It commits every five seconds.
    time.sleep(6)
    world.clients.remove(consumer)
    consumer.shutdown()
    late = ["late-%d" % i for i in range(300)]
    for key in late:
        send(producer, topic, key)
    world.consumer(group, topic, second.take)
    second.await_exactly(late)
    return "%d by one consumer, the next %d by its successor" % (len(early), len(late))


def auto_create(world):
    producer = world.producer()
    topic = world.topic(producer)
    inbox = Inbox()
    keys = ["auto-%d" % i for i in range(100)]
    for key in keys:
        send(producer, topic, key)
    world.consumer(world.name("group"), topic, inbox.take)
    inbox.await_exactly(keys)
    return "made by its first message"


def compressed(world):
    producer = world.producer()
    topic = world.topic(producer)
    came = []
    world.consumer(world.name("group"), topic, lambda message: came.append(message.body))
    text = b"what repeats gets small. " * 4_000
    message = Message(topic)
    message.set_keys("compressed")
    message.set_body(text)
    producer.send_sync(message)
    within(DELIVERY_SECONDS_MAX, lambda: text in came, lambda: "came: bodies of %s" % [len(body) for body in came])
    return "a body of %d bytes" % len(text)


def delay_level(world):
    producer = world.producer()
    topic = world.topic(producer)
    inbox = Inbox()
    world.consumer(world.name("group"), topic, inbox.take)
    due = {}
    for level, seconds in ((0, 0), (1, 1), (2, 5), (3, 10)):
        for i in range(5):
            key = "level-%d-%d" % (level, i)
            due[key] = time.time() + seconds
            send(producer, topic, key, level=level)
    inbox.await_exactly(list(due))
    late = sorted(inbox.of(key)[0][0] - due[key] for key in due)
    check(late[0] > -0.01, "%.3f s early" % -late[0])
    check(late[-1] < LATE_SECONDS_MAX, "%.3f s late" % late[-1])
    return "late by %d ms in the middle, %d ms at most" % (late[len(late) // 2] * 1_000, late[-1] * 1_000)


def retry(world):
    producer = world.producer()
    topic = world.topic(producer)
    inbox = Inbox()

    def take(message):
        inbox.take(message)
        if message.keys.decode().startswith("again") and message.reconsume_times == 0:
            raise ValueError("the application fails")

    world.consumer(world.name("group"), topic, take)
    again, good = ["again-%d" % i for i in range(5)], ["good-%d" % i for i in range(5)]
    for key in again + good:
        send(producer, topic, key)
    within(DELIVERY_SECONDS_MAX, lambda: all(len(inbox.of(key)) == 2 for key in again), lambda: "came: %s" % inbox.arrivals)
    inbox.await_all(good)
    for key in again:
        (first, _), (second, times) = inbox.of(key)
        check(times == 1, "%s came with %d attempts behind it" % (key, times))
        check(second - first >= 9.9, "%s came again after %.1f s" % (key, second - first))
    check(all(len(inbox.of(key)) == 1 for key in good), "a message came again that was consumed")
    return "%d messages again after ten seconds" % len(again)


SCENARIOS = {scenario.__name__: scenario for scenario in (
    sync, oneway, clustering, broadcast, tag_filter, ordered, resume, auto_create, compressed, delay_level, retry)}


def run(name, world):
    begun = time.time()
    line = {"scenario": name}
    try:
        scenario = SCENARIOS.get(name)
        if scenario is None:
            raise Lacks("the library's interface has no such call")
        line.update(ok=True, detail=scenario(world))
    except Lacks as why:
        line["lacks"] = str(why)
    except Exception as failure:
        line.update(ok=False, detail="%s: %s" % (type(failure).__name__, failure))
    for client in reversed(world.clients):
        client.shutdown()
    line.setdefault("seconds", time.time() - begun)
    print(json.dumps(line), flush=True)


def main():
    if len(sys.argv) < 4 or sys.argv[1] != "--namesrv":
        sys.exit("--namesrv HOST:PORT SCENARIO... [--together SCENARIO...]")
    run_id = "%x" % int(time.time() * 1_000)
    for name in sys.argv[3:]:
        # One after the other: callbacks into Python wait for each other anyway.
        if name != "--together":
            run(name, World(sys.argv[2], name + "-" + run_id))
    # The library's threads would go on while the interpreter ends.
    sys.stdout.flush()
    os._exit(0)


main()
