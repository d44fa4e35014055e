/*
 * Every function in four situations: with NULL for everything, twice, after its parents were freed, and from inside
 * `complete`. None of them may crash, block or lose a completion. What was called is printed, one "SITUATION FUNCTION" a
 * line: the test that runs this program compares it with the functions of the header, so that a new one cannot be left
 * out. Argument: endpoint.
 */
#include "host.h"

static const char TOPIC[] = "every";
static const char *situation;

/* Prints the name of the function that `call` calls. */
static void note(const char *call) { printf("%s %.*s\n", situation, (int)strcspn(call, "("), call); }

#define DO(call) (note(#call), (call))

enum { MOST = 64, START_INSIDE = 1 };

/* A handle of every type; NULL once it was freed. */
typedef struct handles {
  host *h;
  fluvio_queue *queue;
  fluvio_client *client;
  fluvio_producer *producer;
  fluvio_consumer *consumer;
  fluvio_subscription *subscription;
  fluvio_options *options; /* of connect */
  fluvio_document *document;
  fluvio_deliveries *deliveries;
  fluvio_batch *batch;
  fluvio_room *room;
  fluvio_error *error;
  uint64_t ids[MOST]; /* what was accepted and has to complete */
  size_t pending;
  int inside;         /* 1: the callback is to call everything; 2: it has */
} handles;

static uint64_t fresh(handles *e) {
  CHECK(e->pending < MOST);
  e->ids[e->pending] = e->h->next++;
  return e->ids[e->pending];
}

/* Counts the completion of an accepted call; frees the error of a refused one. */
static void started(handles *e, fluvio_status status, fluvio_error *error) {
  if (status == FLUVIO_STATUS_OK) e->pending++;
  CHECK((status == FLUVIO_STATUS_ERROR) == (error != NULL));
  fluvio_error_free(error);
}

#define ASYNC(call)                       \
  do {                                    \
    fluvio_error *error = NULL;           \
    uint64_t id = fresh(e);               \
    fluvio_status status = DO(call);      \
    started(e, status, error);            \
  } while (0)

/* Every accepted call completes, once. */
static void settle(handles *e) {
  size_t index;
  for (index = 0; index < e->pending; index++) {
    fluvio_completion done = host_await(e->h, e->ids[index]);
    fluvio_value_free(done.kind, done.value);
  }
  e->pending = 0;
}

static void accessors(handles *e) {
  fluvio_batch_view batch;
  fluvio_deliveries_view deliveries;
  CHECK(DO(fluvio_abi_version()) == FLUVIO_ABI_VERSION);
  CHECK(strlen(DO(fluvio_version())) > 0);
  CHECK(strcmp(DO(fluvio_status_name(FLUVIO_STATUS_FULL)), "FULL") == 0);
  CHECK(strcmp(DO(fluvio_error_kind_name(FLUVIO_ERROR_KIND_BUSY)), "BUSY") == 0);
  CHECK(strcmp(DO(fluvio_outcome_name(FLUVIO_OUTCOME_WRITTEN)), "WRITTEN") == 0);
  CHECK(*DO(fluvio_options_describe()) == '{');
  CHECK(DO(fluvio_error_get_kind(e->error)) == FLUVIO_ERROR_KIND_INVALID_ARGUMENT);
  CHECK(DO(fluvio_error_get_code(e->error)) == 0);
  CHECK(DO(fluvio_error_get_message(e->error)) != NULL);
  CHECK(strcmp(DO(fluvio_error_get_detail(e->error)), "{}") == 0);
  CHECK(DO(fluvio_error_get_topic(e->error)) == NULL);
  CHECK(DO(fluvio_error_get_endpoint(e->error)) == NULL);
  CHECK(DO(fluvio_error_get_partition(e->error)) == FLUVIO_NO_PARTITION);
  CHECK(DO(fluvio_error_get_spu(e->error)) == FLUVIO_NO_SPU);
  CHECK(DO(fluvio_error_get_outcome(e->error)) == FLUVIO_OUTCOME_NONE);
  CHECK(!DO(fluvio_error_is_retriable(e->error)));
  CHECK((DO(fluvio_client_get_endpoint(e->client)) == NULL) == (e->client == NULL));
  CHECK((DO(fluvio_client_get_platform_version(e->client)) == NULL) == (e->client == NULL));
  CHECK((DO(fluvio_producer_get_partition_count(e->producer)) == 0) == (e->producer == NULL));
  CHECK((DO(fluvio_producer_get_buffer_bytes(e->producer)) == 0) == (e->producer == NULL));
  CHECK((DO(fluvio_producer_get_max_record_bytes(e->producer)) == 0) == (e->producer == NULL));
  CHECK((DO(fluvio_queue_get_fd(e->queue)) == -1) == (e->queue == NULL));
  CHECK((DO(fluvio_document_get_length(e->document)) == 0) == (e->document == NULL));
  CHECK(DO(fluvio_document_get_text(e->document)) != NULL);
  memset(&batch, 0, sizeof batch);
  DO(fluvio_batch_get_view(e->batch, &batch));
  CHECK((batch.count == 0) == (e->batch == NULL));
  memset(&deliveries, 0, sizeof deliveries);
  DO(fluvio_deliveries_get_view(e->deliveries, &deliveries));
  CHECK((deliveries.count == 0) == (e->deliveries == NULL));
  CHECK(DO(fluvio_deliveries_get_error(e->deliveries, 0)) == NULL);
}

/* What neither starts an operation nor reads a handle. */
static void synchronous(handles *e) {
  fluvio_completion out[2];
  fluvio_error *error = NULL;
  fluvio_batch *batch = NULL;
  fluvio_document *document = NULL;
  fluvio_options *options;
  fluvio_queue *queue;
  fluvio_context *context;
  fluvio_sink sink;
  size_t count = 0;
  fluvio_status status;
  sink.size = sizeof sink;
  sink.complete = NULL;
  sink.release = NULL;
  sink.context = NULL;
  CHECK(DO(fluvio_context_new(&sink, NULL)) == NULL);
  options = DO(fluvio_options_new("{}", 2, NULL));
  CHECK(options != NULL);
  CHECK(DO(fluvio_options_add_blob(options, "x", 1, NULL, 0, NULL)) == FLUVIO_STATUS_OK);
  DO(fluvio_options_free(options));
  queue = DO(fluvio_queue_new(0, NULL));
  context = DO(fluvio_context_new_on_queue(queue, NULL));
  CHECK(queue != NULL && context != NULL);
  DO(fluvio_cancel(context, 1));
  DO(fluvio_queue_free(queue));
  DO(fluvio_context_free(context));
  DO(fluvio_cancel(e->h->context, 12345678));
  CHECK(DO(fluvio_queue_drain(e->queue, out, 2)) == 0);
  DO(fluvio_queue_wake(e->queue));
  status = DO(fluvio_queue_wait(e->queue, out, 2, 0, &count, &error));
  CHECK(count == 0);
  if (e->queue == NULL || e->inside)
    CHECK(status == FLUVIO_STATUS_ERROR && error != NULL);
  else
    CHECK(status == FLUVIO_STATUS_WOKEN || status == FLUVIO_STATUS_END);
  if (e->inside) CHECK(fluvio_error_get_kind(error) == FLUVIO_ERROR_KIND_BUSY);
  DO(fluvio_error_free(error));
  DO(fluvio_value_free(FLUVIO_VALUE_KIND_NONE, NULL));
  DO(fluvio_flush_all(0));
  error = NULL;
  status = DO(fluvio_consumer_take(e->consumer, &batch, NULL, &error));
  CHECK((status == FLUVIO_STATUS_ERROR) == (e->consumer == NULL));
  DO(fluvio_batch_clear(&batch));
  CHECK(batch == NULL);
  fluvio_batch_clear(NULL);
  fluvio_error_free(error);
  error = NULL;
  status = DO(fluvio_subscription_take(e->subscription, &document, &error));
  CHECK((status == FLUVIO_STATUS_ERROR) == (e->subscription == NULL));
  fluvio_document_free(document);
  fluvio_error_free(error);
}

static void slots(handles *e) {
  fluvio_completion out;
  fluvio_slots *slots = DO(fluvio_slots_new(NULL));
  fluvio_slot *slot = DO(fluvio_slot_new(slots, 0));
  CHECK(slots != NULL && slot != NULL);
  CHECK(DO(fluvio_slots_get_context(slots)) != NULL && fluvio_slots_get_context(NULL) == NULL);
  CHECK(DO(fluvio_slots_get_pending(slots)) == 0 && fluvio_slots_get_pending(NULL) == 0);
  CHECK(DO(fluvio_slots_get_failed(slots)) == 0 && fluvio_slots_get_failed(NULL) == 0);
  CHECK(DO(fluvio_slots_get_failure(slots, 0)) == NULL && fluvio_slots_get_failure(NULL, 0) == NULL);
  CHECK(fluvio_slot_new(NULL, 0) == NULL && fluvio_slot_new(slots, 2) == NULL);
  CHECK(DO(fluvio_slot_wait(slot, 0, &out)) == FLUVIO_STATUS_END);
  CHECK(fluvio_slot_wait(NULL, -1, &out) == FLUVIO_STATUS_ERROR);
  CHECK(fluvio_slot_wait(slot, -1, NULL) == FLUVIO_STATUS_ERROR);
  if (e->inside) CHECK(fluvio_slot_wait(slot, -1, &out) == FLUVIO_STATUS_ERROR);
  DO(fluvio_slot_see(slot));
  DO(fluvio_slots_see_all(slots));
  fluvio_slots_see_all(NULL);
  fluvio_slot_see(NULL);
  DO(fluvio_slots_free(slots));
  CHECK(fluvio_slot_wait(slot, 0, &out) == FLUVIO_STATUS_END);
  DO(fluvio_slot_free(slot));
  fluvio_slot_free(NULL);
  fluvio_slots_free(NULL);
}

static void operations(handles *e) {
  fluvio_context *context = e->h->context;
  const uint8_t *x = (const uint8_t *)"x";
  const uint32_t length = 1;
  size_t accepted = 0;
  fluvio_error *error = NULL;
  uint64_t id;
  fluvio_status status;
  ASYNC(fluvio_connect(context, e->options, id, &error));
  ASYNC(fluvio_admin_create(e->client, context, FLUVIO_OBJECT_KIND_TOPIC, NULL, id, &error));
  ASYNC(fluvio_admin_list(e->client, context, FLUVIO_OBJECT_KIND_TOPIC, NULL, id, &error));
  ASYNC(fluvio_admin_delete(e->client, context, FLUVIO_OBJECT_KIND_TOPIC, "missing", 7, id, &error));
  ASYNC(fluvio_producer_open(e->client, context, TOPIC, strlen(TOPIC), NULL, id, &error));
  ASYNC(fluvio_consumer_open(e->client, context, TOPIC, strlen(TOPIC), NULL, id, &error));
  ASYNC(fluvio_subscription_open(e->client, context, FLUVIO_SUBSCRIPTION_KIND_CONNECTION, NULL, id, &error));
  ASYNC(fluvio_subscription_ready(e->subscription, context, id, &error));
  ASYNC(fluvio_consumer_ready(e->consumer, context, id, &error));
  ASYNC(fluvio_producer_reserve(e->producer, context, 100, id, &error));
  ASYNC(fluvio_producer_send_many(e->producer, context, NULL, x, 1, NULL, &length, 1, 0, id, &accepted, &error));
  ASYNC(fluvio_producer_flush(e->producer, context, id, &error));
  /* The send leaves the room empty, or as it was. */
  id = fresh(e);
  status = DO(fluvio_producer_send(e->producer, context, e->room, NULL, 0, x, 1, 0, id, &error));
  started(e, status, error);
  /* Two of them may wait for ever. */
  for (id = 0; id < e->pending; id++) DO(fluvio_cancel(context, e->ids[id]));
}

static void closers(handles *e) {
  fluvio_context *context = e->h->context;
  ASYNC(fluvio_consumer_close(e->consumer, context, id, &error));
  ASYNC(fluvio_producer_close(e->producer, context, id, &error));
  ASYNC(fluvio_client_close(e->client, context, id, &error));
  DO(fluvio_queue_close(e->queue));
}

#define FREE(function, handle) \
  do {                         \
    DO(function(handle));      \
    handle = NULL;             \
  } while (0)

static void free_all(handles *e) {
  FREE(fluvio_client_free, e->client);
  FREE(fluvio_queue_free, e->queue);
  FREE(fluvio_consumer_free, e->consumer);
  FREE(fluvio_producer_free, e->producer);
  FREE(fluvio_subscription_free, e->subscription);
  FREE(fluvio_room_free, e->room);
  FREE(fluvio_batch_free, e->batch);
  FREE(fluvio_deliveries_free, e->deliveries);
  FREE(fluvio_document_free, e->document);
  FREE(fluvio_options_free, e->options);
  FREE(fluvio_error_free, e->error);
}

static void complete(void *context, const fluvio_completion *completion) {
  handles *e = (handles *)context;
  if (completion->user_data == START_INSIDE && e->inside == 1) {
    accessors(e);
    synchronous(e);
    slots(e);
    operations(e);
    closers(e);
    free_all(e);
    /* The context too: what is pending on it completes as cancelled, or has completed. */
    DO(fluvio_context_free(e->h->context));
    pthread_mutex_lock(&e->h->lock);
    e->h->context = NULL;
    e->inside = 2;
    pthread_mutex_unlock(&e->h->lock);
  }
  host_complete(e->h, completion);
}

static void release(void *context) { host_release(((handles *)context)->h); }

static void bind(handles *e) {
  fluvio_sink sink;
  sink.size = sizeof sink;
  sink.complete = complete;
  sink.release = release;
  sink.context = e;
  e->h->released = 0;
  e->h->context = fluvio_context_new(&sink, NULL);
  CHECK(e->h->context != NULL);
}

/* A handle of every type, with something in it. */
static void make(handles *e, const char *endpoint) {
  char document[100];
  const uint32_t length = 1;
  size_t accepted;
  uint64_t id;
  fluvio_batch_view view;
  memset(e, 0, sizeof *e);
  e->h = host_new("callback");
  host_close(e->h);
  bind(e);
  e->h->next = 100;
  snprintf(document, sizeof document, "{\"endpoint\": \"%s\"}", endpoint);
  e->options = host_options(document);
  e->queue = fluvio_queue_new(0, NULL);
  e->client = host_connect(e->h, endpoint);
  e->producer = host_producer(e->h, e->client, TOPIC, "");
  e->consumer = host_consumer(e->h, e->client, TOPIC, "{\"start\": {\"beginning\": 0}}");
  START(fluvio_subscription_open(e->client, e->h->context, 0, NULL, id = e->h->next++, &error));
  e->subscription = (fluvio_subscription *)host_value(e->h, id, FLUVIO_VALUE_KIND_SUBSCRIPTION);
  START(fluvio_admin_list(e->client, e->h->context, 0, NULL, id = e->h->next++, &error));
  e->document = (fluvio_document *)host_value(e->h, id, FLUVIO_VALUE_KIND_DOCUMENT);
  START(fluvio_producer_send_many(e->producer, e->h->context, NULL, (const uint8_t *)"x", 1, NULL, &length, 1, 0,
                                  id = e->h->next++, &accepted, &error));
  e->deliveries = (fluvio_deliveries *)host_value(e->h, id, FLUVIO_VALUE_KIND_DELIVERIES);
  START(fluvio_producer_reserve(e->producer, e->h->context, 1000, id = e->h->next++, &error));
  e->room = (fluvio_room *)host_value(e->h, id, FLUVIO_VALUE_KIND_ROOM);
  e->batch = host_take(e->h, e->consumer, &view);
  CHECK(fluvio_options_new("[", 1, &e->error) == NULL);
}

static void unmake(handles *e) {
  settle(e);
  if (e->h->context != NULL) host_close(e->h);
  host_free(e->h);
}

static void with_null(void) {
  fluvio_completion out[1];
  size_t count;
  handles none;
  host nobody;
  uint32_t kind;
  situation = "null";
  memset(&none, 0, sizeof none);
  memset(&nobody, 0, sizeof nobody);
  none.h = &nobody;
  accessors(&none);
  DO(fluvio_batch_get_view(NULL, NULL));
  DO(fluvio_deliveries_get_view(NULL, NULL));
  synchronous(&none);
  slots(&none);
  CHECK(DO(fluvio_context_new(NULL, NULL)) == NULL);
  CHECK(DO(fluvio_context_new_on_queue(NULL, NULL)) == NULL);
  CHECK(DO(fluvio_options_add_blob(NULL, NULL, 0, NULL, 0, NULL)) == FLUVIO_STATUS_ERROR);
  CHECK(DO(fluvio_queue_drain(NULL, NULL, 0)) == 0);
  CHECK(DO(fluvio_queue_wait(NULL, NULL, 0, -1, NULL, NULL)) == FLUVIO_STATUS_ERROR);
  CHECK(DO(fluvio_queue_wait(NULL, out, 1, -1, &count, NULL)) == FLUVIO_STATUS_ERROR);
  CHECK(DO(fluvio_consumer_take(NULL, NULL, NULL, NULL)) == FLUVIO_STATUS_ERROR);
  CHECK(DO(fluvio_subscription_take(NULL, NULL, NULL)) == FLUVIO_STATUS_ERROR);
  CHECK(DO(fluvio_producer_send(NULL, NULL, NULL, NULL, 0, NULL, 0, 0, 0, NULL)) == FLUVIO_STATUS_ERROR);
  operations(&none);
  closers(&none);
  CHECK(none.pending == 0);
  free_all(&none);
  DO(fluvio_context_free(NULL));
  for (kind = 0; kind < 20; kind++) DO(fluvio_value_free(kind, NULL));
}

static void twice(const char *endpoint) {
  handles e;
  int round;
  situation = "twice";
  make(&e, endpoint);
  for (round = 0; round < 2; round++) {
    accessors(&e);
    synchronous(&e);
    slots(&e);
    operations(&e);
    settle(&e);
  }
  for (round = 0; round < 2; round++) closers(&e);
  settle(&e);
  /* Freeing once leaves NULL, which may be freed. */
  for (round = 0; round < 2; round++) free_all(&e);
  unmake(&e);
}

static void after_its_parents(const char *endpoint) {
  handles e;
  situation = "orphan";
  make(&e, endpoint);
  /* The context with which everything was made. */
  DO(fluvio_context_free(e.h->context));
  pthread_mutex_lock(&e.h->lock);
  while (!e.h->released) host_wait(e.h);
  pthread_mutex_unlock(&e.h->lock);
  bind(&e);
  accessors(&e);
  synchronous(&e);
  slots(&e);
  operations(&e);
  settle(&e);
  /* The client of a producer, a consumer, a subscription. */
  FREE(fluvio_client_free, e.client);
  accessors(&e);
  synchronous(&e);
  slots(&e);
  operations(&e);
  settle(&e);
  /* The producer and the consumer of a batch, of deliveries, of room. */
  FREE(fluvio_consumer_free, e.consumer);
  FREE(fluvio_producer_free, e.producer);
  accessors(&e);
  closers(&e);
  free_all(&e);
  unmake(&e);
}

static void inside_complete(const char *endpoint) {
  handles e;
  situation = "inside";
  make(&e, endpoint);
  e.inside = 1;
  START(fluvio_producer_flush(e.producer, e.h->context, START_INSIDE, &error));
  host_done(e.h, START_INSIDE);
  CHECK(e.inside == 2);
  settle(&e);
  pthread_mutex_lock(&e.h->lock);
  while (!e.h->released) host_wait(e.h);
  pthread_mutex_unlock(&e.h->lock);
  unmake(&e);
}

int main(int count, char **arguments) {
  host *h;
  fluvio_client *client;
  CHECK(count == 2);
  with_null();
  h = host_new("queue");
  client = host_connect(h, arguments[1]);
  host_create_topic(h, client, TOPIC, 1);
  fluvio_client_free(client);
  host_free(h);
  twice(arguments[1]);
  after_its_parents(arguments[1]);
  inside_complete(arguments[1]);
  check_no_live_objects();
  return 0;
}
