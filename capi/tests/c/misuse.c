/*
 * Bad input at every function: NULL, wrong lengths, wrong numbers. Each is refused with an error that names the argument, or
 * is a no-op, and the handles stay usable. Arguments: endpoint, kind of host.
 */
#include "host.h"

#define INVALID(call) REFUSED(call, FLUVIO_ERROR_KIND_INVALID_ARGUMENT)

/* Refused, and the message has `word`. */
static void names(fluvio_status status, fluvio_error *error, fluvio_error_kind kind, const char *word) {
  CHECK(status == FLUVIO_STATUS_ERROR && error != NULL);
  if (fluvio_error_get_kind(error) != kind || strstr(fluvio_error_get_message(error), word) == NULL)
    FAIL("expected kind %d and %s: %s", (int)kind, word, fluvio_error_get_message(error));
  CHECK(strcmp(fluvio_error_get_detail(error), "") != 0 && !fluvio_error_is_retriable(error));
  fluvio_error_free(error);
}

static void bad_options(void) {
  static const struct {
    const char *document;
    size_t length;
    const char *word;
  } cases[] = {
      {"[", 1, "document"}, {"[1]", 3, "JSON object"}, {"\xff", 1, "UTF-8"}, {NULL, 7, "NULL"}, {"{}", SIZE_MAX, "memory"},
  };
  size_t index;
  fluvio_error *failure = NULL;
  fluvio_options *options;
  const uint8_t byte = 7;
  for (index = 0; index < sizeof cases / sizeof *cases; index++) {
    failure = NULL;
    CHECK(fluvio_options_new(cases[index].document, cases[index].length, &failure) == NULL);
    names(FLUVIO_STATUS_ERROR, failure, FLUVIO_ERROR_KIND_INVALID_ARGUMENT, cases[index].word);
  }
  CHECK(fluvio_options_new("[", 1, NULL) == NULL);
  options = fluvio_options_new(NULL, 0, NULL);
  CHECK(options != NULL);
  INVALID(fluvio_options_add_blob(options, "", 0, &byte, 1, &error));
  INVALID(fluvio_options_add_blob(options, NULL, 3, &byte, 1, &error));
  INVALID(fluvio_options_add_blob(options, "wasm", 4, NULL, 1, &error));
  INVALID(fluvio_options_add_blob(options, "wasm", 4, &byte, SIZE_MAX, &error));
  START(fluvio_options_add_blob(options, "wasm", 4, &byte, 1, &error));
  START(fluvio_options_add_blob(options, "empty", 5, NULL, 0, &error));
  INVALID(fluvio_options_add_blob(options, "wasm", 4, &byte, 1, &error));
  fluvio_options_free(options);
}

static void bad_connects(host *h) {
  static const struct {
    const char *document;
    const char *word;
  } cases[] = {
      {"{\"endpoint\": 5}", "5"},
      {"{\"endpoint\": \"nowhere\"}", "nowhere"},
      {"{\"endpiont\": \"a:1\"}", "endpiont"},
      {"{\"endpoint\": \"a:1\", \"profile\": \"p\"}", "profile"},
      {"{\"endpoint\": \"a:1\", \"connect_timeout_ms\": -1}", "-1"},
  };
  size_t index;
  fluvio_status status;
  fluvio_error *failure = NULL;
  fluvio_options *options;
  for (index = 0; index < sizeof cases / sizeof *cases; index++) {
    failure = NULL;
    WITH_OPTIONS(cases[index].document, status = fluvio_connect(h->context, options, 1, &failure));
    names(status, failure, FLUVIO_ERROR_KIND_INVALID_ARGUMENT, cases[index].word);
  }
  failure = NULL;
  status = fluvio_connect(NULL, NULL, 1, &failure);
  names(status, failure, FLUVIO_ERROR_KIND_INVALID_ARGUMENT, "context");
  CHECK(fluvio_connect(NULL, NULL, 1, NULL) == FLUVIO_STATUS_ERROR);
  /* Nobody listens on port 1. The options may be used again; a blob that nothing asks for is refused by name. */
  options = host_options("{\"endpoint\": \"127.0.0.1:1\"}");
  START(fluvio_connect(h->context, options, 1, &error));
  host_failed(h, 1, FLUVIO_ERROR_KIND_CONNECTION);
  START(fluvio_options_add_blob(options, "ca_certificate", 14, (const uint8_t *)"x", 1, &error));
  failure = NULL;
  status = fluvio_connect(h->context, options, 1, &failure);
  names(status, failure, FLUVIO_ERROR_KIND_INVALID_ARGUMENT, "\"ca_certificate\"");
  fluvio_options_free(options);
}

/* An error says where it was met. */
static void located_error(host *h) {
  fluvio_completion done;
  fluvio_error *error;
  WITH_OPTIONS("{\"endpoint\": \"127.0.0.1:1\"}", START(fluvio_connect(h->context, options, 1, &error)));
  done = host_await(h, 1);
  CHECK(done.status == FLUVIO_STATUS_ERROR);
  error = (fluvio_error *)done.value;
  CHECK(fluvio_error_get_endpoint(error) != NULL && strcmp(fluvio_error_get_endpoint(error), "127.0.0.1:1") == 0);
  CHECK(fluvio_error_get_topic(error) == NULL && fluvio_error_get_partition(error) == FLUVIO_NO_PARTITION);
  CHECK(fluvio_error_get_spu(error) == FLUVIO_NO_SPU && fluvio_error_get_outcome(error) == FLUVIO_OUTCOME_NONE);
  CHECK(strcmp(fluvio_error_kind_name(fluvio_error_get_kind(error)), "CONNECTION") == 0);
  fluvio_error_free(error);
}

static void bad_contexts(void) {
  fluvio_sink sink;
  fluvio_error *failure = NULL;
  sink.size = sizeof sink;
  sink.complete = NULL;
  sink.release = NULL;
  sink.context = NULL;
  CHECK(fluvio_context_new(NULL, &failure) == NULL);
  names(FLUVIO_STATUS_ERROR, failure, FLUVIO_ERROR_KIND_INVALID_ARGUMENT, "sink");
  CHECK(fluvio_context_new(&sink, &failure) == NULL);
  names(FLUVIO_STATUS_ERROR, failure, FLUVIO_ERROR_KIND_INVALID_ARGUMENT, "complete");
  CHECK(fluvio_context_new(&sink, NULL) == NULL);
  sink.size = sizeof sink - 1;
  CHECK(fluvio_context_new(&sink, &failure) == NULL);
  names(FLUVIO_STATUS_ERROR, failure, FLUVIO_ERROR_KIND_INVALID_ARGUMENT, "size");
  CHECK(fluvio_queue_new(8, &failure) == NULL);
  names(FLUVIO_STATUS_ERROR, failure, FLUVIO_ERROR_KIND_INVALID_ARGUMENT, "flags");
}

/* A call that gets `document` as `options` and is refused. */
#define INVALID_OPTIONS(document, call) WITH_OPTIONS(document, INVALID(call))

static void bad_admin(host *h, fluvio_client *client) {
  static const char TOPIC[] = "{\"name\": \"misuse\"}";
  fluvio_context *context = h->context;
  INVALID_OPTIONS(TOPIC, fluvio_admin_create(client, context, 77, options, 1, &error));
  INVALID_OPTIONS("{}", fluvio_admin_create(client, context, 0, options, 1, &error));
  INVALID(fluvio_admin_create(client, context, 0, NULL, 1, &error));
  INVALID_OPTIONS("{\"name\": \"a\", \"color\": 1}", fluvio_admin_create(client, context, 0, options, 1, &error));
  INVALID_OPTIONS(TOPIC, fluvio_admin_create(NULL, context, 0, options, 1, &error));
  INVALID_OPTIONS(TOPIC, fluvio_admin_create(client, NULL, 0, options, 1, &error));
  INVALID(fluvio_admin_delete(client, context, 77, "a", 1, 1, &error));
  INVALID(fluvio_admin_delete(client, context, 0, "", 0, 1, &error));
  INVALID(fluvio_admin_list(client, context, 77, NULL, 1, &error));
  INVALID_OPTIONS("{\"filter\": 1}", fluvio_admin_list(client, context, 0, options, 1, &error));
  INVALID(fluvio_subscription_open(client, context, 77, NULL, 1, &error));
  INVALID_OPTIONS("{\"filter\": 1}", fluvio_subscription_open(client, context, 0, options, 1, &error));
  START(fluvio_admin_delete(client, context, 0, "missing", 7, 1, &error));
  host_failed(h, 1, FLUVIO_ERROR_KIND_TOPIC_NOT_FOUND);
  WITH_OPTIONS(TOPIC, START(fluvio_admin_create(client, context, 0, options, 1, &error)));
  host_failed(h, 1, FLUVIO_ERROR_KIND_TOPIC_ALREADY_EXISTS);
}

static void bad_sends(host *h, fluvio_producer *producer) {
  fluvio_context *context = h->context;
  static const uint32_t lengths[2] = {3, 4};
  static const uint8_t text[] = "0123456789";
  size_t accepted = 99;
  fluvio_room *room;
  INVALID(fluvio_producer_send(NULL, context, NULL, NULL, 0, text, 1, FLUVIO_ANY_PARTITION, 1, &error));
  INVALID(fluvio_producer_send(producer, NULL, NULL, NULL, 0, text, 1, FLUVIO_ANY_PARTITION, 1, &error));
  INVALID(fluvio_producer_send(producer, context, NULL, NULL, 5, text, 1, FLUVIO_ANY_PARTITION, 1, &error));
  INVALID(fluvio_producer_send(producer, context, NULL, NULL, 0, NULL, 1, FLUVIO_ANY_PARTITION, 1, &error));
  INVALID(fluvio_producer_send(producer, context, NULL, NULL, 0, text, SIZE_MAX, FLUVIO_ANY_PARTITION, 1, &error));
  REFUSED(fluvio_producer_send(producer, context, NULL, NULL, 0, text, 1, 7, 1, &error),
          FLUVIO_ERROR_KIND_PARTITION_NOT_FOUND);
  INVALID(fluvio_producer_send_many(producer, context, NULL, text, 7, NULL, lengths, 0, FLUVIO_ANY_PARTITION, 1, &accepted, &error));
  CHECK(accepted == 0);
  INVALID(fluvio_producer_send_many(producer, context, NULL, text, 7, NULL, NULL, 2, FLUVIO_ANY_PARTITION, 1, &accepted, &error));
  INVALID(fluvio_producer_send_many(producer, context, NULL, text, 7, NULL, lengths, 2, FLUVIO_ANY_PARTITION, 1, NULL, &error));
  INVALID(fluvio_producer_send_many(producer, context, NULL, text, 6, NULL, lengths, 2, FLUVIO_ANY_PARTITION, 1, &accepted, &error));
  INVALID(fluvio_producer_send_many(producer, context, NULL, text, 7, lengths, lengths, 2, FLUVIO_ANY_PARTITION, 1, &accepted, &error));
  INVALID(fluvio_producer_send_many(producer, context, NULL, NULL, 7, NULL, lengths, 2, FLUVIO_ANY_PARTITION, 1, &accepted, &error));
  REFUSED(fluvio_producer_send_many(producer, context, NULL, text, 7, NULL, lengths, 2, 9, 1, &accepted, &error),
          FLUVIO_ERROR_KIND_PARTITION_NOT_FOUND);
  INVALID(fluvio_producer_reserve(producer, context, SIZE_MAX, 1, &error));
  INVALID(fluvio_producer_reserve(NULL, context, 1, 1, &error));

  /* A refused send leaves the room with the caller, who may use it or give it back. */
  START(fluvio_producer_reserve(producer, context, 1000, 1, &error));
  room = (fluvio_room *)host_value(h, 1, FLUVIO_VALUE_KIND_ROOM);
  INVALID(fluvio_producer_send(producer, context, room, NULL, 0, NULL, 1, FLUVIO_ANY_PARTITION, 1, &error));
  REFUSED(fluvio_producer_send(producer, context, room, NULL, 0, text, 1, 7, 1, &error),
          FLUVIO_ERROR_KIND_PARTITION_NOT_FOUND);
  START(fluvio_producer_send(producer, context, room, NULL, 0, text, 1, 0, 1, &error));
  CHECK(host_await(h, 1).status == FLUVIO_STATUS_OK);
  /* An accepted send leaves it empty, which is as none. */
  START(fluvio_producer_send(producer, context, room, NULL, 0, text, 1, 0, 1, &error));
  CHECK(host_await(h, 1).status == FLUVIO_STATUS_OK);
  fluvio_room_free(room);
  START(fluvio_producer_reserve(producer, context, 1000, 1, &error));
  fluvio_room_free((fluvio_room *)host_value(h, 1, FLUVIO_VALUE_KIND_ROOM));
}

static void bad_consumers(host *h, fluvio_client *client, fluvio_consumer *consumer) {
  fluvio_context *context = h->context;
  fluvio_batch *batch = NULL;
  INVALID(fluvio_consumer_open(client, context, "", 0, NULL, 1, &error));
  INVALID(fluvio_consumer_open(client, context, NULL, 3, NULL, 1, &error));
  INVALID_OPTIONS("{\"start\": 7}", fluvio_consumer_open(client, context, "misuse", 6, options, 1, &error));
  INVALID(fluvio_consumer_open(NULL, context, "misuse", 6, NULL, 1, &error));
  INVALID(fluvio_producer_open(client, context, "", 0, NULL, 1, &error));
  INVALID_OPTIONS("{\"linger\": 7}", fluvio_producer_open(client, context, "misuse", 6, options, 1, &error));
  INVALID(fluvio_consumer_take(NULL, &batch, NULL, &error));
  INVALID(fluvio_consumer_take(consumer, NULL, NULL, &error));
  INVALID(fluvio_consumer_ready(NULL, context, 1, &error));
  INVALID(fluvio_consumer_ready(consumer, NULL, 1, &error));
  INVALID(fluvio_consumer_close(NULL, context, 1, &error));
  INVALID(fluvio_producer_flush(NULL, context, 1, &error));
  INVALID(fluvio_producer_close(NULL, context, 1, &error));
  INVALID(fluvio_client_close(NULL, context, 1, &error));
  START(fluvio_consumer_open(client, context, "missing", 7, NULL, 1, &error));
  host_failed(h, 1, FLUVIO_ERROR_KIND_TOPIC_NOT_FOUND);
  START(fluvio_producer_open(client, context, "missing", 7, NULL, 1, &error));
  host_failed(h, 1, FLUVIO_ERROR_KIND_TOPIC_NOT_FOUND);
  WITH_OPTIONS("{\"partitions\": [5]}",
               START(fluvio_consumer_open(client, context, "misuse", 6, options, 1, &error)));
  host_failed(h, 1, FLUVIO_ERROR_KIND_PARTITION_NOT_FOUND);
}

int main(int count, char **arguments) {
  host *h;
  fluvio_client *client;
  fluvio_producer *producer;
  fluvio_consumer *consumer;
  fluvio_batch_view view;
  CHECK(count == 3);
  h = host_new(arguments[2]);
  bad_contexts();
  bad_options();
  bad_connects(h);
  located_error(h);
  client = host_connect(h, arguments[1]);
  host_create_topic(h, client, "misuse", 1);
  bad_admin(h, client);
  producer = host_producer(h, client, "misuse", "");
  consumer = host_consumer(h, client, "misuse", "{\"start\": {\"beginning\": 0}}");
  bad_consumers(h, client, consumer);
  bad_sends(h, producer);
  fluvio_batch_free(host_take(h, consumer, &view));
  /* The two that were sent come together or one after the other. */
  CHECK(view.count == 1 || view.count == 2);
  fluvio_consumer_free(consumer);
  fluvio_producer_free(producer);
  fluvio_client_free(client);
  host_free(h);
  check_no_live_objects();
  return 0;
}
