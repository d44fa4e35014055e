/*
 * Room is the caller's until a send has taken it: a refused send leaves it as it was, whoever waits in line, and a send_many
 * whose room would do for a record is never told FULL, whatever others do meanwhile.
 * Arguments: endpoint, kind of host, rounds.
 */
#include "host.h"

static const char TOPIC[] = "room";

enum { VALUE = 3600, BUFFER = 4096 };

static uint8_t value[VALUE];

static fluvio_room *reserve(host *h, fluvio_producer *producer, size_t bytes) {
  uint64_t id = h->next++;
  START(fluvio_producer_reserve(producer, h->context, bytes, id, &error));
  return (fluvio_room *)host_value(h, id, FLUVIO_VALUE_KIND_ROOM);
}

/* With the whole buffer reserved and another in line, whose user_data refused sends use. */
static void refused_sends_leave_the_room(host *h, fluvio_client *client) {
  fluvio_producer *producer = host_producer(h, client, TOPIC, "{\"buffer_bytes\": 4096}");
  fluvio_room *room = reserve(h, producer, BUFFER);
  const uint32_t length = VALUE;
  size_t accepted = 1;
  uint64_t waiting = h->next++, id;
  int round;
  START(fluvio_producer_reserve(producer, h->context, 1000, waiting, &error));
  for (round = 0; round < 100; round++) {
    REFUSED(fluvio_producer_send(producer, h->context, room, NULL, 0, value, VALUE, 0, waiting, &error),
            FLUVIO_ERROR_KIND_DUPLICATE);
    REFUSED(fluvio_producer_send_many(producer, h->context, room, value, VALUE, NULL, &length, 1, 0, waiting, &accepted,
                                      &error),
            FLUVIO_ERROR_KIND_DUPLICATE);
    CHECK(accepted == 0);
    REFUSED(fluvio_producer_send(producer, h->context, room, NULL, 0, value, VALUE, 9, waiting, &error),
            FLUVIO_ERROR_KIND_PARTITION_NOT_FOUND);
  }
  /* It is all there. */
  if (h->next % 2 == 0) {
    START(fluvio_producer_send(producer, h->context, room, NULL, 0, value, VALUE, 0, id = h->next++, &error));
    CHECK(host_await(h, id).status == FLUVIO_STATUS_OK);
  } else {
    START(fluvio_producer_send_many(producer, h->context, room, value, VALUE, NULL, &length, 1, 0, id = h->next++,
                                    &accepted, &error));
    CHECK(accepted == 1);
    fluvio_deliveries_free((fluvio_deliveries *)host_value(h, id, FLUVIO_VALUE_KIND_DELIVERIES));
  }
  /* The send has emptied it. */
  fluvio_room_free(room);
  fluvio_room_free((fluvio_room *)host_value(h, waiting, FLUVIO_VALUE_KIND_ROOM));
  fluvio_producer_free(producer);
}

typedef struct disturber {
  host *h;
  fluvio_producer *producer;
  volatile int stop;
} disturber;

/* Takes and gives back most of what is free. */
static void *disturb(void *argument) {
  disturber *self = (disturber *)argument;
  self->h->caller = pthread_self();
  while (!self->stop) fluvio_room_free(reserve(self->h, self->producer, 900000));
  return NULL;
}

static void room_that_would_do_is_never_full(host *h, const char *kind, fluvio_client *client, unsigned long rounds) {
  enum { COUNT = 20000, LENGTH = 40, RESERVED = 100 };
  static uint32_t lengths[COUNT];
  static uint8_t arena[COUNT * LENGTH];
  pthread_t thread;
  disturber other;
  unsigned long round;
  for (round = 0; round < COUNT; round++) lengths[round] = LENGTH;
  other.h = host_new(kind);
  other.producer = host_producer(h, client, TOPIC, "{\"buffer_bytes\": 1500000}");
  other.stop = 0;
  CHECK(pthread_create(&thread, NULL, disturb, &other) == 0);
  for (round = 0; round < rounds; round++) {
    fluvio_room *room = reserve(h, other.producer, RESERVED * (LENGTH + FLUVIO_RECORD_OVERHEAD));
    size_t accepted = 0;
    uint64_t id = h->next++;
    START(fluvio_producer_send_many(other.producer, h->context, room, arena, sizeof arena, NULL, lengths, COUNT, 0, id,
                                    &accepted, &error));
    CHECK(accepted >= RESERVED);
    fluvio_room_free(room);
    fluvio_deliveries_free((fluvio_deliveries *)host_value(h, id, FLUVIO_VALUE_KIND_DELIVERIES));
  }
  other.stop = 1;
  CHECK(pthread_join(thread, NULL) == 0);
  fluvio_producer_free(other.producer);
  host_free(other.h);
}

int main(int count, char **arguments) {
  host *h;
  fluvio_client *client;
  CHECK(count == 4);
  h = host_new(arguments[2]);
  client = host_connect(h, arguments[1]);
  host_create_topic(h, client, TOPIC, 1);
  refused_sends_leave_the_room(h, client);
  h->next++;
  refused_sends_leave_the_room(h, client);
  room_that_would_do_is_never_full(h, arguments[2], client, strtoul(arguments[3], NULL, 10));
  fluvio_client_free(client);
  host_free(h);
  check_no_live_objects();
  return 0;
}
