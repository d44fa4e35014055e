/*
 * The round trip: connect, create a topic, send single records and many, read all of them back, delete the topic.
 * Arguments: endpoint, kind of host (callback, queue, poll, socket), number of records for send_many.
 */
#include "host.h"

static const char TOPIC[] = "round-trip";

enum { SINGLE = 4 };

/* Keys of the records of send_many: every third has none, every third an empty one. */
static uint32_t make_key(size_t number, char *out, size_t size) {
  switch (number % 3) {
    case 0:
      return (uint32_t)snprintf(out, size, "key-%zu", number);
    case 1:
      return FLUVIO_NO_KEY;
    default:
      return 0;
  }
}

static void send_single(host *h, fluvio_producer *producer) {
  fluvio_completion done[SINGLE];
  uint64_t first = h->next;
  int index;
  h->next += SINGLE;
  START(fluvio_producer_send(producer, h->context, NULL, (const uint8_t *)"k", 1, (const uint8_t *)"keyed", 5, 1, first,
                             &error));
  START(fluvio_producer_send(producer, h->context, NULL, NULL, 0, (const uint8_t *)"no key", 6, 1, first + 1, &error));
  START(fluvio_producer_send(producer, h->context, NULL, (const uint8_t *)"", 0, (const uint8_t *)"empty key", 9, 1,
                             first + 2, &error));
  START(fluvio_producer_send(producer, h->context, NULL, NULL, 0, NULL, 0, 1, first + 3, &error));
  for (index = 0; index < SINGLE; index++) {
    done[index] = host_await(h, first + (uint64_t)index);
    CHECK(done[index].status == FLUVIO_STATUS_OK && done[index].kind == FLUVIO_VALUE_KIND_NONE);
    CHECK(done[index].partition == 1 && done[index].offset == index);
  }
}

static void check_deliveries(fluvio_deliveries *deliveries, size_t count) {
  fluvio_deliveries_view view;
  size_t index;
  fluvio_deliveries_get_view(deliveries, &view);
  CHECK(view.count == count && view.failed == 0 && view.errors == NULL);
  for (index = 0; index < count; index++) CHECK(view.partitions[index] < 3 && view.offsets[index] >= 0);
  CHECK(fluvio_deliveries_get_error(deliveries, 0) == NULL);
  fluvio_deliveries_free(deliveries);
}

static void send_many(host *h, fluvio_producer *producer, size_t total) {
  char *arena = (char *)malloc(total * 64);
  uint32_t *key_lengths = (uint32_t *)malloc(total * sizeof *key_lengths);
  uint32_t *value_lengths = (uint32_t *)malloc(total * sizeof *value_lengths);
  char *end = arena;
  size_t sent = 0, calls = 0, number;
  uint64_t first = h->next;
  size_t *counts = (size_t *)malloc(total * sizeof *counts);
  fluvio_room *room = NULL;
  CHECK(arena && key_lengths && value_lengths && counts);
  for (number = 0; number < total; number++) {
    key_lengths[number] = make_key(number, end, 32);
    if (key_lengths[number] != FLUVIO_NO_KEY) end += key_lengths[number];
    value_lengths[number] = (uint32_t)snprintf(end, 32, "value-%zu", number);
    end += value_lengths[number];
  }
  {
    const char *rest = arena;
    while (sent < total) {
      size_t accepted = 0;
      fluvio_error *error = NULL;
      fluvio_status status = fluvio_producer_send_many(
          producer, h->context, room, (const uint8_t *)rest, (size_t)(end - rest), key_lengths + sent,
          value_lengths + sent, total - sent, FLUVIO_ANY_PARTITION, first + calls, &accepted, &error);
      if (status == FLUVIO_STATUS_OK) {
        fluvio_room_free(room); /* a send leaves it empty */
        room = NULL;
        CHECK(accepted >= 1 && accepted <= total - sent);
        for (number = sent; number < sent + accepted; number++)
          rest += value_lengths[number] + (key_lengths[number] == FLUVIO_NO_KEY ? 0 : key_lengths[number]);
        counts[calls++] = accepted;
        sent += accepted;
      } else if (status == FLUVIO_STATUS_FULL) {
        uint64_t id = first + total; /* beyond the numbers of the calls */
        CHECK(room == NULL && accepted == 0);
        START(fluvio_producer_reserve(producer, h->context, fluvio_producer_get_buffer_bytes(producer) / 2, id, &error));
        room = (fluvio_room *)host_value(h, id, FLUVIO_VALUE_KIND_ROOM);
      } else {
        FAIL("send_many: %s", fluvio_error_get_message(error));
      }
    }
  }
  /* The copies are the library's: these may go before the acknowledgements come. */
  free(arena);
  free(key_lengths);
  free(value_lengths);
  for (number = 0; number < calls; number++)
    check_deliveries((fluvio_deliveries *)host_value(h, first + number, FLUVIO_VALUE_KIND_DELIVERIES), counts[number]);
  free(counts);
  h->next = first + total + 1;
  printf("send_many took %zu calls\n", calls);
}

/* One record that send_single or send_many wrote; marks it as seen. */
static void check_record(const fluvio_batch_view *view, size_t index, size_t total, unsigned char *seen) {
  const char *value = (const char *)view->data + view->value_starts[index];
  size_t length = view->value_ends[index] - view->value_starts[index];
  int has_key = view->key_starts[index] != FLUVIO_NO_KEY;
  size_t key_length = has_key ? view->key_ends[index] - view->key_starts[index] : 0;
  const char *key = has_key ? (const char *)view->data + view->key_starts[index] : NULL;
  size_t number;
  CHECK(view->timestamps[index] > 1500000000000 || view->timestamps[index] == -1);
  if (length > 6 && memcmp(value, "value-", 6) == 0) {
    char text[32], expected[32];
    uint32_t expected_length;
    CHECK(length < sizeof text);
    memcpy(text, value, length);
    text[length] = 0;
    number = strtoul(text + 6, NULL, 10);
    CHECK(number < total);
    expected_length = make_key(number, expected, sizeof expected);
    CHECK(has_key == (expected_length != FLUVIO_NO_KEY));
    if (has_key) CHECK(key_length == expected_length && memcmp(key, expected, key_length) == 0);
    number += SINGLE;
  } else {
    number = (size_t)view->offsets[index];
    CHECK(view->partition == 1 && number < SINGLE);
    CHECK(has_key == (number == 0 || number == 2));
    CHECK(key_length == (number == 0 ? 1u : 0u));
    CHECK(length == (number == 0 ? 5u : number == 1 ? 6u : number == 2 ? 9u : 0u));
  }
  CHECK(!seen[number]);
  seen[number] = 1;
}

static void consume_all(host *h, fluvio_consumer *consumer, size_t total) {
  unsigned char *seen = (unsigned char *)calloc(1, total + SINGLE);
  int64_t next[3] = {0, 0, 0};
  size_t left = total + SINGLE;
  CHECK(seen != NULL);
  while (left > 0) {
    fluvio_batch_view view, again;
    size_t index;
    fluvio_batch *batch = host_take(h, consumer, &view);
    fluvio_batch_get_view(batch, &again);
    CHECK(memcmp(&view, &again, sizeof view) == 0);
    CHECK(view.count >= 1 && view.count <= left && view.partition < 3);
    for (index = 0; index < view.count; index++) {
      CHECK(view.offsets[index] == next[view.partition]);
      next[view.partition]++;
      check_record(&view, index, total, seen);
    }
    CHECK(view.high_watermark >= next[view.partition]);
    left -= view.count;
    fluvio_batch_free(batch);
  }
  free(seen);
}

static void check_listed(host *h, fluvio_client *client, int expected) {
  uint64_t id = h->next++;
  fluvio_document *document;
  const char *text;
  START(fluvio_admin_list(client, h->context, FLUVIO_OBJECT_KIND_TOPIC, NULL, id, &error));
  document = (fluvio_document *)host_value(h, id, FLUVIO_VALUE_KIND_DOCUMENT);
  text = fluvio_document_get_text(document);
  CHECK(strlen(text) == fluvio_document_get_length(document) && text[0] == '[');
  if ((strstr(text, TOPIC) != NULL) != expected) FAIL("listed: %s", text);
  fluvio_document_free(document);
}

int main(int count, char **arguments) {
  fluvio_client *client;
  fluvio_producer *producer;
  fluvio_consumer *consumer;
  fluvio_batch *batch = NULL;
  host *h;
  size_t total;
  uint64_t id;
  CHECK(count == 4);
  CHECK(fluvio_abi_version() == FLUVIO_ABI_VERSION && strcmp(fluvio_version(), FLUVIO_VERSION) == 0);
  total = strtoul(arguments[3], NULL, 10);
  h = host_new(arguments[2]);
  client = host_connect(h, arguments[1]);
  CHECK(strcmp(fluvio_client_get_endpoint(client), arguments[1]) == 0);
  printf("platform %s\n", fluvio_client_get_platform_version(client));
  host_create_topic(h, client, TOPIC, 3);
  check_listed(h, client, 1);

  producer = host_producer(h, client, TOPIC, "{\"buffer_bytes\": 262144}");
  CHECK(fluvio_producer_get_partition_count(producer) == 3 && fluvio_producer_get_buffer_bytes(producer) == 262144);
  send_single(h, producer);
  send_many(h, producer, total);
  START(fluvio_producer_flush(producer, h->context, id = h->next++, &error));
  host_done(h, id);

  consumer = host_consumer(h, client, TOPIC, "{\"start\": {\"beginning\": 0}}");
  consume_all(h, consumer, total);
  CHECK(fluvio_consumer_take(consumer, &batch, NULL, NULL) == FLUVIO_STATUS_EMPTY);
  START(fluvio_consumer_close(consumer, h->context, id = h->next++, &error));
  host_done(h, id);
  CHECK(fluvio_consumer_take(consumer, &batch, NULL, NULL) == FLUVIO_STATUS_END);
  CHECK(batch == NULL);

  START(fluvio_producer_close(producer, h->context, id = h->next++, &error));
  host_done(h, id);
  host_delete_topic(h, client, TOPIC);
  check_listed(h, client, 0);
  START(fluvio_client_close(client, h->context, id = h->next++, &error));
  host_done(h, id);
  fluvio_consumer_free(consumer);
  fluvio_producer_free(producer);
  fluvio_client_free(client);
  host_free(h);
  check_no_live_objects();
  printf("round trip of %zu records through %s: ok\n", total + SINGLE, arguments[2]);
  return 0;
}
