/*
 * Many operations at once with the completion queue and poll(): sends 10 000 records in few calls, reads them back.
 *
 *   cc -std=c11 queue.c -lfluvio_cffi -o queue && ./queue 127.0.0.1:9003
 *
 * Everything happens on the main thread. A program with an event loop would watch fluvio_queue_get_fd() there and call
 * step() when it is readable.
 */
#include <fluvio.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { RECORDS = 10000 };

static const char TOPIC[] = "example-queue";

/* user_data of each kind of operation; a real program would use a counter or a pointer. */
enum { CONNECT = 1, CREATE, PRODUCER, CONSUMER, READY, RESERVE, DELETE, SEND = 100 };

struct program {
  fluvio_queue *queue;
  fluvio_context *context;
  fluvio_client *client;
  fluvio_producer *producer;
  fluvio_consumer *consumer;
  fluvio_room *room;
  size_t acknowledged;
  size_t read;
  size_t calls;
  int created, deleted;
};

static void fail(const char *what, fluvio_error *error) {
  fprintf(stderr, "%s: %s\n", what, fluvio_error_get_message(error));
  exit(1);
}

/* Options from a JSON document; they are ours to free. */
static fluvio_options *new_options(const char *document) {
  fluvio_error *error = NULL;
  fluvio_options *options = fluvio_options_new(document, strlen(document), &error);
  if (options == NULL) fail(document, error);
  return options;
}

static void check(const char *what, fluvio_status status, fluvio_error *error) {
  if (status != FLUVIO_STATUS_OK) fail(what, error);
}

static void count_deliveries(struct program *p, fluvio_deliveries *deliveries) {
  fluvio_deliveries_view view;
  fluvio_deliveries_get_view(deliveries, &view);
  if (view.failed != 0) {
    fprintf(stderr, "%zu records failed: %s\n", view.failed,
            fluvio_error_get_message(fluvio_deliveries_get_error(deliveries, 0)));
    exit(1);
  }
  p->acknowledged += view.count;
  fluvio_deliveries_free(deliveries);
}

/* Takes what is there, then asks to be told of more. */
static void read_batches(struct program *p) {
  fluvio_error *error = NULL;
  fluvio_batch *batch;
  fluvio_batch_view view;
  fluvio_status status;
  while ((status = fluvio_consumer_take(p->consumer, &batch, &view, &error)) == FLUVIO_STATUS_OK) {
    p->read += view.count;
    printf("partition %u: %zu records from offset %lld\n", view.partition, view.count, (long long)view.offsets[0]);
    fluvio_batch_free(batch);
  }
  if (status != FLUVIO_STATUS_EMPTY) fail("take", error);
  if (p->read < RECORDS) check("ready", fluvio_consumer_ready(p->consumer, p->context, READY, &error), error);
}

static void handle(struct program *p, const fluvio_completion *done) {
  if (done->status != FLUVIO_STATUS_OK) fail("operation", (fluvio_error *)done->value);
  switch (done->user_data) {
    case CONNECT:
      p->client = (fluvio_client *)done->value;
      break;
    case CREATE:
      p->created = 1;
      break;
    case PRODUCER:
      p->producer = (fluvio_producer *)done->value;
      break;
    case CONSUMER:
      p->consumer = (fluvio_consumer *)done->value;
      read_batches(p);
      break;
    case READY:
      read_batches(p);
      break;
    case RESERVE:
      p->room = (fluvio_room *)done->value;
      break;
    case DELETE:
      p->deleted = 1;
      break;
    default:
      count_deliveries(p, (fluvio_deliveries *)done->value);
  }
}

/* Waits until completions are there, and handles them. */
static void step(struct program *p) {
  fluvio_completion out[64];
  size_t count, index;
  struct pollfd entry;
  entry.fd = fluvio_queue_get_fd(p->queue);
  entry.events = POLLIN;
  entry.revents = 0;
  poll(&entry, 1, -1);
  count = fluvio_queue_drain(p->queue, out, 64);
  for (index = 0; index < count; index++) handle(p, &out[index]);
}

static void send_all(struct program *p) {
  static char arena[RECORDS * 16];
  static uint32_t lengths[RECORDS];
  fluvio_error *error = NULL;
  const char *rest = arena;
  size_t total = 0, sent = 0, index;
  for (index = 0; index < RECORDS; index++) {
    lengths[index] = (uint32_t)sprintf(arena + total, "record %zu", index);
    total += lengths[index];
  }
  while (sent < RECORDS) {
    size_t accepted = 0;
    fluvio_status status = fluvio_producer_send_many(p->producer, p->context, p->room, (const uint8_t *)rest,
                                                     (size_t)(arena + total - rest), NULL, lengths + sent,
                                                     RECORDS - sent, FLUVIO_ANY_PARTITION, SEND + p->calls, &accepted,
                                                     &error);
    if (status == FLUVIO_STATUS_FULL) {
      /* More than the producer's buffer holds: wait for room, while acknowledgements come in. */
      check("reserve", fluvio_producer_reserve(p->producer, p->context, 65536, RESERVE, &error), error);
      while (p->room == NULL) step(p);
      continue;
    }
    check("send_many", status, error);
    fluvio_room_free(p->room); /* empty now */
    p->room = NULL;
    p->calls++;
    for (index = 0; index < accepted; index++) rest += lengths[sent + index];
    sent += accepted;
  }
}

int main(int count, char **arguments) {
  struct program state;
  struct program *p = &state;
  fluvio_error *error = NULL;
  fluvio_options *options;
  char text[200];
  if (count != 2) {
    fprintf(stderr, "usage: %s HOST:PORT\n", arguments[0]);
    return 2;
  }
  memset(p, 0, sizeof *p);
  p->queue = fluvio_queue_new(0, &error);
  if (p->queue == NULL) fail("queue", error);
  p->context = fluvio_context_new_on_queue(p->queue, &error);
  if (p->context == NULL) fail("context", error);

  snprintf(text, sizeof text, "{\"endpoint\": \"%s\"}", arguments[1]);
  options = new_options(text);
  check("connect", fluvio_connect(p->context, options, CONNECT, &error), error);
  fluvio_options_free(options); /* what the call needs of them was copied */
  while (p->client == NULL) step(p);
  snprintf(text, sizeof text, "{\"name\": \"%s\", \"partitions\": 3}", TOPIC);
  options = new_options(text);
  check("create", fluvio_admin_create(p->client, p->context, FLUVIO_OBJECT_KIND_TOPIC, options, CREATE, &error), error);
  fluvio_options_free(options);
  while (!p->created) step(p);

  /* Producer and consumer open at the same time. */
  options = new_options("{\"buffer_bytes\": 262144, \"max_request_size_bytes\": 131072, \"batch_size_bytes\": 65536}");
  check("producer", fluvio_producer_open(p->client, p->context, TOPIC, strlen(TOPIC), options, PRODUCER, &error), error);
  fluvio_options_free(options);
  options = new_options("{\"start\": {\"beginning\": 0}}");
  check("consumer", fluvio_consumer_open(p->client, p->context, TOPIC, strlen(TOPIC), options, CONSUMER, &error), error);
  fluvio_options_free(options);
  while (p->producer == NULL) step(p);
  send_all(p);
  while (p->acknowledged < RECORDS || p->read < RECORDS) step(p);
  printf("%d records, acknowledged and read back, in %zu calls\n", RECORDS, p->calls);

  check("delete",
        fluvio_admin_delete(p->client, p->context, FLUVIO_OBJECT_KIND_TOPIC, TOPIC, strlen(TOPIC), DELETE, &error), error);
  while (!p->deleted) step(p);
  fluvio_consumer_free(p->consumer);
  fluvio_producer_free(p->producer);
  fluvio_client_free(p->client);
  fluvio_context_free(p->context);
  fluvio_queue_free(p->queue);
  return 0;
}
