/*
 * Cancels around the instant of completion: every operation completes exactly once, and nothing is lost or leaked.
 * Arguments: endpoint, kind of host, rounds.
 */
#include "host.h"

static const char TOPIC[] = "cancel";

static unsigned long cancelled, completed;

/* A short pause of varying length. */
static void jitter(unsigned round) {
  volatile unsigned spin = (round * 2654435761u) % 40000u;
  while (spin > 0) spin = spin - 1;
}

/* Any end is right, but an error; what was carried is freed. */
static void either(host *h, uint64_t id) {
  fluvio_completion done = host_await(h, id);
  if (done.status == FLUVIO_STATUS_ERROR) FAIL("failed: %s", fluvio_error_get_message((fluvio_error *)done.value));
  if (done.status == FLUVIO_STATUS_CANCELLED) {
    CHECK(done.value == NULL);
    cancelled++;
  } else {
    completed++;
  }
  fluvio_value_free(done.kind, done.value);
}

static void race_calls(host *h, const char *endpoint, fluvio_client *client, fluvio_producer *producer,
                       fluvio_consumer *consumer, unsigned rounds) {
  char document[100];
  fluvio_options *options;
  unsigned round;
  snprintf(document, sizeof document, "{\"endpoint\": \"%s\"}", endpoint);
  options = host_options(document);
  for (round = 0; round < rounds; round++) {
    uint64_t id = h->next++;
    switch (round % 6) {
      case 0:
        START(fluvio_connect(h->context, options, id, &error));
        break;
      case 1:
        START(fluvio_admin_list(client, h->context, FLUVIO_OBJECT_KIND_TOPIC, NULL, id, &error));
        break;
      case 2:
        START(fluvio_producer_reserve(producer, h->context, 1000, id, &error));
        break;
      case 3:
        START(fluvio_consumer_open(client, h->context, TOPIC, strlen(TOPIC), NULL, id, &error));
        break;
      case 4:
        START(fluvio_producer_flush(producer, h->context, id, &error));
        break;
      default:
        START(fluvio_consumer_ready(consumer, h->context, id, &error));
    }
    jitter(round);
    if (round % 6 == 0 && round % 4 != 0) {
      struct timespec pause;
      pause.tv_sec = 0;
      pause.tv_nsec = (long)(round % 1000) * 2000;
      nanosleep(&pause, NULL);
    }
    fluvio_cancel(h->context, id);
    fluvio_cancel(h->context, id);
    either(h, id);
    fluvio_cancel(h->context, id);
  }
  fluvio_options_free(options);
}

/* Cancelled sends are sent: all of them are read back, once. */
static void race_sends(host *h, fluvio_producer *producer, fluvio_consumer *consumer, unsigned rounds) {
  unsigned char *seen = (unsigned char *)calloc(rounds, 1);
  unsigned round, left = rounds;
  uint64_t id;
  CHECK(seen != NULL);
  for (round = 0; round < rounds; round++) {
    char text[16];
    int length = snprintf(text, sizeof text, "%u", round);
    size_t accepted = 0;
    uint32_t size = (uint32_t)length;
    id = h->next++;
    if (round % 2 == 0) {
      START(fluvio_producer_send(producer, h->context, NULL, NULL, 0, (const uint8_t *)text, size, FLUVIO_ANY_PARTITION, id, &error));
    } else {
      START(fluvio_producer_send_many(producer, h->context, NULL, (const uint8_t *)text, size, NULL, &size, 1, FLUVIO_ANY_PARTITION, id,
                                      &accepted, &error));
      CHECK(accepted == 1);
    }
    jitter(round);
    fluvio_cancel(h->context, id);
    either(h, id);
  }
  START(fluvio_producer_flush(producer, h->context, id = h->next++, &error));
  host_done(h, id);
  while (left > 0) {
    fluvio_batch_view view;
    fluvio_batch *batch = host_take(h, consumer, &view);
    size_t index;
    for (index = 0; index < view.count; index++) {
      char text[16];
      size_t length = view.value_ends[index] - view.value_starts[index];
      unsigned long number;
      CHECK(length < sizeof text);
      memcpy(text, view.data + view.value_starts[index], length);
      text[length] = 0;
      number = strtoul(text, NULL, 10);
      CHECK(number < rounds && !seen[number]);
      seen[number] = 1;
      left--;
    }
    fluvio_batch_free(batch);
  }
  free(seen);
}

int main(int count, char **arguments) {
  host *h;
  fluvio_client *client;
  fluvio_producer *producer;
  fluvio_consumer *consumer;
  unsigned rounds;
  CHECK(count == 4);
  rounds = (unsigned)strtoul(arguments[3], NULL, 10);
  h = host_new(arguments[2]);
  client = host_connect(h, arguments[1]);
  host_create_topic(h, client, TOPIC, 2);
  producer = host_producer(h, client, TOPIC, "");
  consumer = host_consumer(h, client, TOPIC, "{\"start\": {\"beginning\": 0}}");
  race_calls(h, arguments[1], client, producer, consumer, rounds);
  printf("calls: %lu cancelled, %lu completed\n", cancelled, completed);
  race_sends(h, producer, consumer, rounds);
  printf("with sends: %lu cancelled, %lu completed\n", cancelled, completed);
  fluvio_consumer_free(consumer);
  fluvio_producer_free(producer);
  fluvio_client_free(client);
  host_free(h);
  check_no_live_objects();
  return 0;
}
