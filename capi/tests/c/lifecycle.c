/*
 * The life of handles: duplicates, a busy consumer, use after close, freeing in any order and with operations in flight.
 * Arguments: endpoint, kind of host.
 */
#include "host.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

static const char TOPIC[] = "life";

static void one_at_a_time(host *h, fluvio_consumer *consumer) {
  uint64_t id = h->next++, other = h->next++;
  int round;
  START(fluvio_consumer_ready(consumer, h->context, id, &error));
  REFUSED(fluvio_consumer_ready(consumer, h->context, other, &error), FLUVIO_ERROR_KIND_BUSY);
  REFUSED(fluvio_consumer_ready(consumer, h->context, id, &error), FLUVIO_ERROR_KIND_BUSY);
  for (round = 0; round < 100; round++) {
    /* The next wait may be started before the cancelled one has completed. */
    fluvio_cancel(h->context, id);
    START(fluvio_consumer_ready(consumer, h->context, other, &error));
    host_cancelled(h, id);
    id = other;
    other = h->next++;
  }
  fluvio_cancel(h->context, id);
  host_cancelled(h, id);
}

static void duplicates(host *h, fluvio_client *client, fluvio_producer *producer, fluvio_consumer *consumer) {
  static const uint32_t length = 1;
  uint64_t id = h->next++;
  size_t accepted = 5;
  fluvio_batch_view view;
  fluvio_batch *batch;
  START(fluvio_consumer_ready(consumer, h->context, id, &error));
  REFUSED(fluvio_admin_list(client, h->context, FLUVIO_OBJECT_KIND_TOPIC, NULL, id, &error),
          FLUVIO_ERROR_KIND_DUPLICATE);
  REFUSED(fluvio_producer_flush(producer, h->context, id, &error), FLUVIO_ERROR_KIND_DUPLICATE);
  REFUSED(fluvio_producer_send(producer, h->context, NULL, NULL, 0, (const uint8_t *)"x", 1, 0, id, &error),
          FLUVIO_ERROR_KIND_DUPLICATE);
  REFUSED(fluvio_producer_send_many(producer, h->context, NULL, (const uint8_t *)"x", 1, NULL, &length, 1, 0, id,
                                    &accepted, &error),
          FLUVIO_ERROR_KIND_DUPLICATE);
  CHECK(accepted == 0);
  /* None of them was sent: the only record is this one. */
  START(fluvio_producer_send(producer, h->context, NULL, NULL, 0, (const uint8_t *)"y", 1, 0, h->next, &error));
  CHECK(host_await(h, h->next++).offset == 0);
  host_done(h, id);
  batch = host_take(h, consumer, &view);
  CHECK(view.count == 1 && view.data[view.value_starts[0]] == 'y');
  fluvio_batch_free(batch);
}

static void after_close(host *h, fluvio_client *client, fluvio_producer *producer, fluvio_consumer *consumer) {
  fluvio_context *context = h->context;
  fluvio_batch *batch = NULL;
  int round;
  for (round = 0; round < 2; round++) {
    START(fluvio_producer_close(producer, context, 1, &error));
    REFUSED(fluvio_producer_send(producer, context, NULL, NULL, 0, NULL, 0, 0, 2, &error), FLUVIO_ERROR_KIND_CLOSED);
    host_done(h, 1);
    START(fluvio_producer_reserve(producer, context, 10, 1, &error));
    host_failed(h, 1, FLUVIO_ERROR_KIND_CLOSED);
    START(fluvio_producer_flush(producer, context, 1, &error));
    host_done(h, 1);

    START(fluvio_consumer_close(consumer, context, 1, &error));
    CHECK(fluvio_consumer_take(consumer, &batch, NULL, NULL) == FLUVIO_STATUS_END);
    host_done(h, 1);
    START(fluvio_consumer_ready(consumer, context, 1, &error));
    host_done(h, 1);

    START(fluvio_client_close(client, context, 1, &error));
    REFUSED(fluvio_admin_list(client, context, FLUVIO_OBJECT_KIND_TOPIC, NULL, 2, &error), FLUVIO_ERROR_KIND_CLOSED);
    REFUSED(fluvio_producer_open(client, context, TOPIC, 4, NULL, 2, &error), FLUVIO_ERROR_KIND_CLOSED);
    REFUSED(fluvio_consumer_open(client, context, TOPIC, 4, NULL, 2, &error), FLUVIO_ERROR_KIND_CLOSED);
    host_done(h, 1);
  }
  CHECK(batch == NULL);
}

/* Producers and consumers outlive their client; records outlive their producer. */
static void free_in_any_order(host *h, const char *endpoint) {
  enum { RECORDS = 200 };
  fluvio_client *client = host_connect(h, endpoint);
  fluvio_producer *producer = host_producer(h, client, TOPIC, "{\"linger_ms\": 20}");
  fluvio_consumer *consumer = host_consumer(h, client, TOPIC, "{\"start\": {\"end\": 0}}");
  fluvio_batch_view view;
  fluvio_batch *batch;
  uint64_t first = h->next, id;
  size_t read = 0;
  h->next += RECORDS;
  fluvio_client_free(client);
  for (id = first; id < first + RECORDS; id++)
    START(fluvio_producer_send(producer, h->context, NULL, NULL, 0, (const uint8_t *)"later", 5, 0, id, &error));
  fluvio_producer_free(producer);
  for (id = first; id < first + RECORDS; id++) CHECK(host_await(h, id).status == FLUVIO_STATUS_OK);
  while (read < RECORDS) {
    batch = host_take(h, consumer, &view);
    read += view.count;
    if (read >= RECORDS) {
      /* A batch outlives its consumer. */
      fluvio_consumer_free(consumer);
      CHECK(memcmp(view.data + view.value_starts[0], "later", 5) == 0);
    }
    fluvio_batch_free(batch);
  }
}

/* What lingers is sent and waited for, whether its producer was freed or not, and also if nobody waits for it any more. */
static void flush_all(host *h, const char *endpoint) {
  fluvio_client *client = host_connect(h, endpoint);
  fluvio_producer *kept = host_producer(h, client, TOPIC, "{\"linger_ms\": 60000}");
  fluvio_producer *freed = host_producer(h, client, TOPIC, "{\"linger_ms\": 60000}");
  uint64_t first = h->next++, second = h->next++, third = h->next++;
  /* A record is counted off once its completion was given, which another thread may see sooner. */
  CHECK(fluvio_flush_all(30000) == 0);
  START(fluvio_producer_send(kept, h->context, NULL, NULL, 0, (const uint8_t *)"a", 1, 0, first, &error));
  START(fluvio_producer_send(kept, h->context, NULL, NULL, 0, (const uint8_t *)"b", 1, 0, second, &error));
  START(fluvio_producer_send(freed, h->context, NULL, NULL, 0, (const uint8_t *)"c", 1, 0, third, &error));
  fluvio_cancel(h->context, second);
  fluvio_producer_free(freed);
  CHECK(fluvio_flush_all(30000) == 0);
  CHECK(host_await(h, first).offset >= 0);
  host_cancelled(h, second);
  CHECK(host_await(h, third).offset >= 0);
  fluvio_producer_free(kept);
  fluvio_client_free(client);
}

/* Listens, and never answers. */
static int silent_server(fluvio_options **options) {
  char document[100];
  struct sockaddr_in address;
  socklen_t length = sizeof address;
  int listener = socket(AF_INET, SOCK_STREAM, 0);
  memset(&address, 0, sizeof address);
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  CHECK(listener >= 0 && bind(listener, (struct sockaddr *)&address, sizeof address) == 0 && listen(listener, 64) == 0);
  CHECK(getsockname(listener, (struct sockaddr *)&address, &length) == 0);
  snprintf(document, sizeof document, "{\"endpoint\": \"127.0.0.1:%d\"}", (int)ntohs(address.sin_port));
  *options = host_options(document);
  return listener;
}

/* What is in flight when the context goes completes as cancelled; with a queue it is then freed or fetched. */
static void free_context_in_flight(const char *kind, const char *endpoint) {
  enum { OPERATIONS = 40 };
  host *h = host_new(kind);
  fluvio_client *client = host_connect(h, endpoint);
  fluvio_consumer *consumer = host_consumer(h, client, TOPIC, "");
  fluvio_producer *producer = host_producer(h, client, TOPIC, "{\"linger_ms\": 2000}");
  fluvio_options *options;
  int listener = silent_server(&options);
  uint64_t id;
  for (id = 1000; id < 1000 + OPERATIONS; id++)
    START(fluvio_connect(h->context, options, id, &error));
  fluvio_options_free(options);
  START(fluvio_consumer_ready(consumer, h->context, id, &error));
  for (id = 2000; id < 2000 + OPERATIONS; id++)
    START(fluvio_producer_send(producer, h->context, NULL, NULL, 0, (const uint8_t *)"sent", 4, 0, id, &error));
  host_close(h);
  for (id = 1000; id <= 1000 + OPERATIONS; id++) host_cancelled(h, id);
  for (id = 2000; id < 2000 + OPERATIONS; id++) host_cancelled(h, id);
  fluvio_producer_free(producer);
  fluvio_consumer_free(consumer);
  fluvio_client_free(client);
  host_free(h);
  close(listener);
}

/* The queue goes first, then the context, with operations in flight. */
static void free_queue_first(const char *endpoint) {
  int round;
  (void)endpoint;
  for (round = 0; round < 20; round++) {
    fluvio_options *options;
    int listener = silent_server(&options);
    fluvio_queue *queue = fluvio_queue_new(0, NULL);
    fluvio_context *context = fluvio_context_new_on_queue(queue, NULL);
    START(fluvio_connect(context, options, 1, &error));
    fluvio_options_free(options);
    WITH_OPTIONS("{\"endpoint\": \"127.0.0.1:1\"}", START(fluvio_connect(context, options, 2, &error)));
    if (round % 2 == 0) fluvio_queue_free(queue);
    fluvio_context_free(context);
    if (round % 2 == 1) fluvio_queue_free(queue);
    close(listener);
  }
}

int main(int count, char **arguments) {
  host *h;
  fluvio_client *client;
  fluvio_producer *producer;
  fluvio_consumer *consumer;
  CHECK(count == 3);
  h = host_new(arguments[2]);
  h->next = 100;
  client = host_connect(h, arguments[1]);
  host_create_topic(h, client, TOPIC, 1);
  producer = host_producer(h, client, TOPIC, "");
  consumer = host_consumer(h, client, TOPIC, "");
  one_at_a_time(h, consumer);
  duplicates(h, client, producer, consumer);
  after_close(h, client, producer, consumer);
  fluvio_consumer_free(consumer);
  fluvio_producer_free(producer);
  fluvio_client_free(client);
  free_in_any_order(h, arguments[1]);
  flush_all(h, arguments[1]);
  free_context_in_flight(arguments[2], arguments[1]);
  free_queue_first(arguments[1]);
  host_free(h);
  check_no_live_objects();
  return 0;
}
