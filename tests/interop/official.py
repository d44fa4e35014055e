"""Runs in the official client's environment: one action against a server, its outcome as JSON on stdout.

    official.py ENDPOINT create TOPIC PARTITIONS
    official.py ENDPOINT delete TOPIC
    official.py ENDPOINT topics
    official.py ENDPOINT produce TOPIC
    official.py ENDPOINT consume TOPIC PARTITION
    official.py ENDPOINT upload NAME FILE
    official.py ENDPOINT transform TOPIC COUNT name|path MODULE
    official.py ENDPOINT resume TOPIC CONSUMER COUNT
    official.py ENDPOINT offsets
    official.py ENDPOINT forget TOPIC CONSUMER

`produce` takes [[key, value], ...] in hex on stdin and prints [[partition, offset], ...]; `consume` reads
up to the end of the partition and prints [[offset, key, value], ...]; `transform` takes COUNT records of
partition 0 through a SmartModule and prints their values. `resume` takes COUNT records of partition 0 from
where CONSUMER is, stores where that is then, and prints their values; `offsets` prints
[[consumer, topic, partition, offset], ...]; `forget` deletes what CONSUMER has stored for partition 0.

It imports nothing of this project. The official client has no NULL key: it cannot send one, and reads one as
the five bytes "No key".
"""

from __future__ import annotations

import json
import sys
from typing import Any

import fluvio  # type: ignore[import-not-found, unused-ignore]


def configuration(endpoint: str) -> Any:
    config = fluvio.FluvioConfig.new(endpoint)
    config.disable_tls()
    return config


def create(endpoint: str, topic: str, partitions: str) -> None:
    spec = fluvio.TopicSpec.create().with_partitions(int(partitions))
    fluvio.FluvioAdmin.connect_with_config(configuration(endpoint)).create_topic(topic, spec.build())


def delete(endpoint: str, topic: str) -> None:
    fluvio.FluvioAdmin.connect_with_config(configuration(endpoint)).delete_topic(topic)


def topics(endpoint: str) -> list[str]:
    admin = fluvio.FluvioAdmin.connect_with_config(configuration(endpoint))
    return [topic.name() for topic in admin.all_topics()]


def produce(endpoint: str, topic: str) -> list[tuple[int, int]]:
    records = [(bytes.fromhex(key), bytes.fromhex(value)) for key, value in json.load(sys.stdin)]
    client = fluvio.Fluvio.connect_with_config(configuration(endpoint))
    producer = client.topic_producer(topic)
    outputs = producer.send_all(records)
    producer.flush()
    acks = []
    for output in outputs:
        ack = output.wait()
        acks.append((ack.partition_id(), ack.offset()))
    return acks


def consume(endpoint: str, topic: str, partition: str) -> list[tuple[int, str, str]]:
    client = fluvio.Fluvio.connect_with_config(configuration(endpoint))
    builder = fluvio.ConsumerConfigExtBuilder(topic)
    builder.partition(int(partition))
    builder.offset_start(fluvio.Offset.beginning())
    builder.disable_continuous()
    return [
        (record.offset(), bytes(record.key()).hex(), bytes(record.value()).hex())
        for record in client.consumer_with_config(builder.build())
    ]


def upload(endpoint: str, name: str, file: str) -> None:
    admin = fluvio.FluvioAdmin.connect_with_config(configuration(endpoint))
    admin.create_smartmodule(name, file, False)


def transform(endpoint: str, topic: str, count: str, by: str, module: str) -> list[str]:
    config = fluvio.ConsumerConfig()
    config.smartmodule(**{by: module})
    consumer = fluvio.Fluvio.connect_with_config(configuration(endpoint)).partition_consumer(topic, 0)
    records = consumer.stream_with_config(fluvio.Offset.beginning(), config)
    return [bytes(next(records).value()).hex() for _ in range(int(count))]


def resume(endpoint: str, topic: str, consumer: str, count: str) -> list[str]:
    builder = fluvio.ConsumerConfigExtBuilder(topic)
    builder.partition(0)
    builder.offset_start(fluvio.Offset.beginning())
    builder.offset_consumer(consumer)
    builder.offset_strategy(fluvio.OffsetManagementStrategy.MANUAL)
    records = fluvio.Fluvio.connect_with_config(configuration(endpoint)).consumer_with_config(builder.build())
    values = [bytes(next(records).value()).hex() for _ in range(int(count))]
    records.offset_commit()
    records.offset_flush()
    return values


def offsets(endpoint: str) -> list[tuple[str, str, int, int]]:
    found = fluvio.Fluvio.connect_with_config(configuration(endpoint)).consumer_offsets()
    return [(entry.consumer_id, entry.topic, entry.partition, entry.offset) for entry in found]


def forget(endpoint: str, topic: str, consumer: str) -> None:
    fluvio.Fluvio.connect_with_config(configuration(endpoint)).delete_consumer_offset(consumer, topic, 0)


if __name__ == "__main__":
    endpoint, action, *arguments = sys.argv[1:]
    actions: dict[str, Any] = {
        "create": create,
        "delete": delete,
        "topics": topics,
        "produce": produce,
        "consume": consume,
        "upload": upload,
        "transform": transform,
        "resume": resume,
        "offsets": offsets,
        "forget": forget,
    }
    json.dump(actions[action](endpoint, *arguments), sys.stdout)
