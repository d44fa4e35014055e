/*
 * Bad input at every function: NULL, wrong lengths, wrong numbers. Each is refused with an error that names the argument, or
 * is a no-op, and the handles stay usable. Arguments: endpoint, kind of host.
 */
#include "host.h"

static void null_frees(void) {
  uint32_t kind;
  fluvio_batch_free(NULL);
  fluvio_client_free(NULL);
  fluvio_consumer_free(NULL);
  fluvio_context_free(NULL);
  fluvio_deliveries_free(NULL);
  fluvio_document_free(NULL);
  fluvio_error_free(NULL);
  fluvio_producer_free(NULL);
  fluvio_queue_free(NULL);
  fluvio_room_free(NULL);
  for (kind = 0; kind < 20; kind++) fluvio_value_free(kind, NULL);
}

static void null_accessors(void) {
  fluvio_completion out[1];
  fluvio_sink sink;
  fluvio_deliveries_view deliveries;
  fluvio_batch_view batch;
  CHECK(fluvio_client_endpoint(NULL) == NULL && fluvio_client_platform_version(NULL) == NULL);
  CHECK(strcmp(fluvio_document_text(NULL), "") == 0 && fluvio_document_length(NULL) == 0);
  CHECK(strcmp(fluvio_error_message(NULL), "") == 0 && strcmp(fluvio_error_detail(NULL), "{}") == 0);
  CHECK(fluvio_error_code(NULL) == 0 && !fluvio_error_is_retriable(NULL));
  CHECK(fluvio_error_get_kind(NULL) == FLUVIO_ERROR_KIND_INVALID_ARGUMENT);
  CHECK(fluvio_queue_fd(NULL) == -1 && fluvio_queue_drain(NULL, out, 1) == 0);
  CHECK(fluvio_queue_wait(NULL, out, 1, -1) == 0 && fluvio_queue_sink(NULL, &sink) == FLUVIO_STATUS_ERROR);
  CHECK(fluvio_producer_partition_count(NULL) == 0 && fluvio_producer_buffer_bytes(NULL) == 0);
  CHECK(fluvio_deliveries_error(NULL, 0) == NULL);
  fluvio_deliveries_get_view(NULL, &deliveries);
  fluvio_deliveries_get_view(NULL, NULL);
  fluvio_batch_get_view(NULL, &batch);
  fluvio_cancel(NULL, 1);
}

#define INVALID(call) REFUSED(call, FLUVIO_ERROR_KIND_INVALID_ARGUMENT)

/* Refused, and the message has `word`. */
static void names(fluvio_status status, fluvio_error *error, fluvio_error_kind kind, const char *word) {
  CHECK(status == FLUVIO_STATUS_ERROR && error != NULL);
  if (fluvio_error_get_kind(error) != kind || strstr(fluvio_error_message(error), word) == NULL)
    FAIL("expected kind %d and %s: %s", (int)kind, word, fluvio_error_message(error));
  CHECK(strcmp(fluvio_error_detail(error), "") != 0 && !fluvio_error_is_retriable(error));
  fluvio_error_free(error);
}

static void bad_connects(host *h) {
  static const struct {
    const char *options;
    const char *word;
  } cases[] = {
      {"{\"endpoint\": 5}", "5"},
      {"{\"endpoint\": \"nowhere\"}", "nowhere"},
      {"{\"endpiont\": \"a:1\"}", "endpiont"},
      {"{\"endpoint\": \"a:1\", \"profile\": \"p\"}", "profile"},
      {"[", "options"},
      {"{\"endpoint\": \"a:1\", \"connect_timeout_ms\": -1}", "-1"},
      {"\xff", "UTF-8"},
  };
  size_t index;
  fluvio_status status;
  fluvio_error *failure = NULL;
  for (index = 0; index < sizeof cases / sizeof *cases; index++) {
    failure = NULL;
    status = fluvio_connect(h->context, cases[index].options, strlen(cases[index].options), 1, &failure);
    names(status, failure, FLUVIO_ERROR_KIND_INVALID_ARGUMENT, cases[index].word);
  }
  failure = NULL;
  status = fluvio_connect(h->context, NULL, 7, 1, &failure);
  names(status, failure, FLUVIO_ERROR_KIND_INVALID_ARGUMENT, "options");
  failure = NULL;
  status = fluvio_connect(NULL, "{}", 2, 1, &failure);
  names(status, failure, FLUVIO_ERROR_KIND_INVALID_ARGUMENT, "context");
  CHECK(fluvio_connect(NULL, "{}", 2, 1, NULL) == FLUVIO_STATUS_ERROR);
  /* Nobody listens on port 1. */
  START(fluvio_connect(h->context, "{\"endpoint\": \"127.0.0.1:1\"}", 27, 1, &error));
  host_failed(h, 1, FLUVIO_ERROR_KIND_CONNECTION);
}

static void bad_contexts(void) {
  fluvio_sink sink;
  fluvio_error *failure = NULL;
  sink.complete = NULL;
  sink.release = NULL;
  sink.context = NULL;
  CHECK(fluvio_context_new(NULL, &failure) == NULL);
  names(FLUVIO_STATUS_ERROR, failure, FLUVIO_ERROR_KIND_INVALID_ARGUMENT, "sink");
  CHECK(fluvio_context_new(&sink, &failure) == NULL);
  names(FLUVIO_STATUS_ERROR, failure, FLUVIO_ERROR_KIND_INVALID_ARGUMENT, "complete");
  CHECK(fluvio_context_new(&sink, NULL) == NULL);
  CHECK(fluvio_queue_new(8, &failure) == NULL);
  names(FLUVIO_STATUS_ERROR, failure, FLUVIO_ERROR_KIND_INVALID_ARGUMENT, "flags");
}

static void bad_admin(host *h, fluvio_client *client) {
  fluvio_context *context = h->context;
  INVALID(fluvio_admin_create(client, context, 77, "{}", 2, 1, &error));
  INVALID(fluvio_admin_create(client, context, 0, "{}", 2, 1, &error));
  INVALID(fluvio_admin_create(client, context, 0, "", 0, 1, &error));
  INVALID(fluvio_admin_create(client, context, 0, "{\"name\": \"a\", \"color\": 1}", 24, 1, &error));
  INVALID(fluvio_admin_create(NULL, context, 0, "{\"name\": \"a\"}", 13, 1, &error));
  INVALID(fluvio_admin_create(client, NULL, 0, "{\"name\": \"a\"}", 13, 1, &error));
  INVALID(fluvio_admin_delete(client, context, 77, "a", 1, 1, &error));
  INVALID(fluvio_admin_delete(client, context, 0, "", 0, 1, &error));
  INVALID(fluvio_admin_list(client, context, 77, NULL, 0, 1, &error));
  INVALID(fluvio_admin_list(client, context, 0, "{\"filter\": 1}", 13, 1, &error));
  START(fluvio_admin_delete(client, context, 0, "missing", 7, 1, &error));
  host_failed(h, 1, FLUVIO_ERROR_KIND_TOPIC_NOT_FOUND);
  START(fluvio_admin_create(client, context, 0, "{\"name\": \"misuse\"}", 18, 1, &error));
  host_failed(h, 1, FLUVIO_ERROR_KIND_TOPIC_ALREADY_EXISTS);
}

static void bad_sends(host *h, fluvio_producer *producer) {
  fluvio_context *context = h->context;
  static const uint32_t lengths[2] = {3, 4};
  static const uint8_t text[] = "0123456789";
  size_t accepted = 99;
  fluvio_room *room;
  INVALID(fluvio_producer_send(NULL, context, NULL, NULL, 0, text, 1, -1, 1, &error));
  INVALID(fluvio_producer_send(producer, NULL, NULL, NULL, 0, text, 1, -1, 1, &error));
  INVALID(fluvio_producer_send(producer, context, NULL, NULL, 5, text, 1, -1, 1, &error));
  INVALID(fluvio_producer_send(producer, context, NULL, NULL, 0, NULL, 1, -1, 1, &error));
  INVALID(fluvio_producer_send(producer, context, NULL, NULL, 0, text, SIZE_MAX, -1, 1, &error));
  INVALID(fluvio_producer_send(producer, context, NULL, NULL, 0, text, 1, -2, 1, &error));
  REFUSED(fluvio_producer_send(producer, context, NULL, NULL, 0, text, 1, 7, 1, &error),
          FLUVIO_ERROR_KIND_PARTITION_NOT_FOUND);
  INVALID(fluvio_producer_send_many(producer, context, NULL, text, 7, NULL, lengths, 0, -1, 1, &accepted, &error));
  CHECK(accepted == 0);
  INVALID(fluvio_producer_send_many(producer, context, NULL, text, 7, NULL, NULL, 2, -1, 1, &accepted, &error));
  INVALID(fluvio_producer_send_many(producer, context, NULL, text, 7, NULL, lengths, 2, -1, 1, NULL, &error));
  INVALID(fluvio_producer_send_many(producer, context, NULL, text, 6, NULL, lengths, 2, -1, 1, &accepted, &error));
  INVALID(fluvio_producer_send_many(producer, context, NULL, text, 7, lengths, lengths, 2, -1, 1, &accepted, &error));
  INVALID(fluvio_producer_send_many(producer, context, NULL, NULL, 7, NULL, lengths, 2, -1, 1, &accepted, &error));
  INVALID(fluvio_producer_send_many(producer, context, NULL, text, 7, NULL, lengths, 2, -9, 1, &accepted, &error));
  INVALID(fluvio_producer_reserve(producer, context, SIZE_MAX, 1, &error));
  INVALID(fluvio_producer_reserve(NULL, context, 1, 1, &error));

  /* A refused send leaves the room with the caller, who may use it or give it back. */
  START(fluvio_producer_reserve(producer, context, 1000, 1, &error));
  room = (fluvio_room *)host_value(h, 1, FLUVIO_VALUE_KIND_ROOM);
  INVALID(fluvio_producer_send(producer, context, room, NULL, 0, text, 1, -2, 1, &error));
  REFUSED(fluvio_producer_send(producer, context, room, NULL, 0, text, 1, 7, 1, &error),
          FLUVIO_ERROR_KIND_PARTITION_NOT_FOUND);
  START(fluvio_producer_send(producer, context, room, NULL, 0, text, 1, 0, 1, &error));
  CHECK(host_await(h, 1).status == FLUVIO_STATUS_OK);
  START(fluvio_producer_reserve(producer, context, 1000, 1, &error));
  fluvio_room_free((fluvio_room *)host_value(h, 1, FLUVIO_VALUE_KIND_ROOM));
}

static void bad_consumers(host *h, fluvio_client *client, fluvio_consumer *consumer) {
  fluvio_context *context = h->context;
  fluvio_batch *batch = NULL;
  INVALID(fluvio_consumer_open(client, context, "", 0, "", 0, 1, &error));
  INVALID(fluvio_consumer_open(client, context, NULL, 3, "", 0, 1, &error));
  INVALID(fluvio_consumer_open(client, context, "misuse", 6, "{\"start\": 7}", 12, 1, &error));
  INVALID(fluvio_consumer_open(NULL, context, "misuse", 6, "", 0, 1, &error));
  INVALID(fluvio_producer_open(client, context, "", 0, "", 0, 1, &error));
  INVALID(fluvio_producer_open(client, context, "misuse", 6, "{\"linger\": 7}", 13, 1, &error));
  INVALID(fluvio_consumer_take(NULL, &batch, NULL, &error));
  INVALID(fluvio_consumer_take(consumer, NULL, NULL, &error));
  INVALID(fluvio_consumer_ready(NULL, context, 1, &error));
  INVALID(fluvio_consumer_ready(consumer, NULL, 1, &error));
  INVALID(fluvio_consumer_close(NULL, context, 1, &error));
  INVALID(fluvio_producer_flush(NULL, context, 1, &error));
  INVALID(fluvio_producer_close(NULL, context, 1, &error));
  INVALID(fluvio_client_close(NULL, context, 1, &error));
  START(fluvio_consumer_open(client, context, "missing", 7, "", 0, 1, &error));
  host_failed(h, 1, FLUVIO_ERROR_KIND_TOPIC_NOT_FOUND);
  START(fluvio_producer_open(client, context, "missing", 7, "", 0, 1, &error));
  host_failed(h, 1, FLUVIO_ERROR_KIND_TOPIC_NOT_FOUND);
  START(fluvio_consumer_open(client, context, "misuse", 6, "{\"partitions\": [5]}", 19, 1, &error));
  host_failed(h, 1, FLUVIO_ERROR_KIND_PARTITION_NOT_FOUND);
}

int main(int count, char **arguments) {
  host *h;
  fluvio_client *client;
  fluvio_producer *producer;
  fluvio_consumer *consumer;
  fluvio_batch_view view;
  CHECK(count == 3);
  null_frees();
  null_accessors();
  h = host_new(arguments[2]);
  bad_contexts();
  bad_connects(h);
  client = host_connect(h, arguments[1]);
  host_create_topic(h, client, "misuse", 1);
  bad_admin(h, client);
  producer = host_producer(h, client, "misuse", "");
  consumer = host_consumer(h, client, "misuse", "{\"start\": {\"beginning\": 0}}");
  bad_consumers(h, client, consumer);
  bad_sends(h, producer);
  fluvio_batch_free(host_take(h, consumer, &view));
  CHECK(view.count == 1);
  fluvio_consumer_free(consumer);
  fluvio_producer_free(producer);
  fluvio_client_free(client);
  host_free(h);
  check_no_live_objects();
  return 0;
}
