/*
 * fork() with everything in use: in the child every old handle says FORKED, freeing one is a no-op, the parent's
 * descriptor is left alone, and a new context works; the parent goes on as if nothing had happened.
 * Arguments: endpoint, kind of host, rounds.
 */
#include "host.h"

#include <sys/wait.h>

static const char TOPIC[] = "fork";

#define FORKED(call) REFUSED(call, FLUVIO_ERROR_KIND_FORKED)

static void old_handles(host *h, fluvio_client *client, fluvio_producer *producer, fluvio_consumer *consumer,
                        fluvio_room *room, fluvio_batch *batch) {
  fluvio_context *context = h->context;
  fluvio_completion out[4];
  size_t count = 1;
  fluvio_batch *taken = NULL;
  uint32_t length = 1;
  size_t accepted = 0;
  const uint8_t *x = (const uint8_t *)"x";
  FORKED(fluvio_connect(context, NULL, 1, &error));
  FORKED(fluvio_admin_create(client, context, 0, NULL, 1, &error));
  FORKED(fluvio_admin_delete(client, context, 0, "a", 1, 1, &error));
  FORKED(fluvio_admin_list(client, context, 0, NULL, 1, &error));
  FORKED(fluvio_subscription_open(client, context, 0, NULL, 1, &error));
  FORKED(fluvio_producer_open(client, context, TOPIC, 4, NULL, 1, &error));
  FORKED(fluvio_consumer_open(client, context, TOPIC, 4, NULL, 1, &error));
  FORKED(fluvio_producer_reserve(producer, context, 1, 1, &error));
  FORKED(fluvio_producer_send(producer, context, room, NULL, 0, x, 1, 0, 1, &error));
  FORKED(fluvio_producer_send(producer, context, NULL, NULL, 0, x, 1, 0, 1, &error));
  FORKED(fluvio_producer_send_many(producer, context, NULL, x, 1, NULL, &length, 1, 0, 1, &accepted, &error));
  FORKED(fluvio_producer_flush(producer, context, 1, &error));
  FORKED(fluvio_producer_close(producer, context, 1, &error));
  FORKED(fluvio_consumer_ready(consumer, context, 1, &error));
  FORKED(fluvio_consumer_take(consumer, &taken, NULL, &error));
  FORKED(fluvio_consumer_close(consumer, context, 1, &error));
  FORKED(fluvio_client_close(client, context, 1, &error));
  CHECK(fluvio_producer_get_partition_count(producer) == 0);
  CHECK(fluvio_client_get_platform_version(client) != NULL);
  fluvio_cancel(context, 1);
  if (h->queue != NULL) {
    CHECK(fluvio_queue_get_fd(h->queue) == -1);
    CHECK(fluvio_queue_drain(h->queue, out, 4) == 0);
    FORKED(fluvio_queue_wait(h->queue, out, 4, -1, &count, &error));
    CHECK(count == 0 && fluvio_context_new_on_queue(h->queue, NULL) == NULL);
    fluvio_queue_wake(h->queue);
    fluvio_queue_close(h->queue);
  }
  /* Plain memory can still be read. */
  {
    fluvio_batch_view view;
    fluvio_batch_get_view(batch, &view);
    CHECK(view.count >= 1 && view.data[view.value_starts[0]] == 'x');
  }
  fluvio_batch_free(batch);
  fluvio_room_free(room);
  fluvio_consumer_free(consumer);
  fluvio_producer_free(producer);
  fluvio_client_free(client);
  fluvio_context_free(context);
  fluvio_queue_free(h->queue);
}

/* Everything anew; old and new may meet in one call. */
static void new_handles(const char *kind, const char *endpoint, fluvio_client *old) {
  host *h = host_new(kind);
  fluvio_client *client = host_connect(h, endpoint);
  fluvio_producer *producer = host_producer(h, client, TOPIC, "");
  fluvio_consumer *consumer = host_consumer(h, client, TOPIC, "{\"start\": {\"beginning\": 0}}");
  fluvio_batch_view view;
  FORKED(fluvio_admin_list(old, h->context, 0, NULL, 1, &error));
  START(fluvio_producer_send(producer, h->context, NULL, NULL, 0, (const uint8_t *)"x child", 7, 0, h->next, &error));
  CHECK(host_await(h, h->next++).status == FLUVIO_STATUS_OK);
  fluvio_batch_free(host_take(h, consumer, &view));
  fluvio_consumer_free(consumer);
  fluvio_producer_free(producer);
  fluvio_client_free(client);
  host_free(h);
}

typedef struct load {
  host *h;
  fluvio_producer *producer;
  volatile int stop;
  unsigned long sent;
} load;

static void *send_all_the_time(void *argument) {
  load *self = (load *)argument;
  self->h->caller = pthread_self();
  while (!self->stop) {
    uint64_t id = self->h->next++;
    START(fluvio_producer_send(self->producer, self->h->context, NULL, NULL, 0, (const uint8_t *)"x load", 6, 0, id,
                               &error));
    CHECK(host_await(self->h, id).status == FLUVIO_STATUS_OK);
    self->sent++;
  }
  return NULL;
}

static void one_fork(const char *endpoint, const char *kind) {
  host *h = host_new(kind);
  fluvio_client *client = host_connect(h, endpoint);
  fluvio_producer *producer = host_producer(h, client, TOPIC, "");
  fluvio_consumer *consumer = host_consumer(h, client, TOPIC, "{\"start\": {\"beginning\": 0}}");
  fluvio_batch_view view;
  fluvio_batch *batch;
  fluvio_room *room;
  uint64_t id = h->next++;
  pid_t child;
  int status;
  START(fluvio_producer_send(producer, h->context, NULL, NULL, 0, (const uint8_t *)"x", 1, 0, id, &error));
  CHECK(host_await(h, id).status == FLUVIO_STATUS_OK);
  batch = host_take(h, consumer, &view);
  START(fluvio_producer_reserve(producer, h->context, 100, id = h->next++, &error));
  room = (fluvio_room *)host_value(h, id, FLUVIO_VALUE_KIND_ROOM);
  /* A completion waits in the parent's queue while it forks. */
  START(fluvio_producer_send(producer, h->context, NULL, NULL, 0, (const uint8_t *)"x", 1, 0, id = h->next++, &error));

  fflush(stdout);
  child = fork();
  CHECK(child >= 0);
  if (child == 0) {
    alarm(120);
    old_handles(h, client, producer, consumer, room, batch);
    new_handles(kind, endpoint, client);
    _exit(0);
  }
  CHECK(waitpid(child, &status, 0) == child);
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) FAIL("the child ended with status %#x", (unsigned)status);

  CHECK(host_await(h, id).status == FLUVIO_STATUS_OK);
  START(fluvio_producer_send(producer, h->context, room, NULL, 0, (const uint8_t *)"x", 1, 0, id = h->next++, &error));
  CHECK(host_await(h, id).status == FLUVIO_STATUS_OK);
  fluvio_room_free(room);
  fluvio_batch_free(batch);
  fluvio_consumer_free(consumer);
  fluvio_producer_free(producer);
  fluvio_client_free(client);
  host_free(h);
}

int main(int count, char **arguments) {
  host *h;
  fluvio_client *client;
  pthread_t thread;
  load work;
  unsigned long round, rounds;
  CHECK(count == 4);
  rounds = strtoul(arguments[3], NULL, 10);
  h = host_new(arguments[2]);
  client = host_connect(h, arguments[1]);
  host_create_topic(h, client, TOPIC, 1);
  work.h = h;
  work.producer = host_producer(h, client, TOPIC, "");
  work.stop = 0;
  work.sent = 0;
  CHECK(pthread_create(&thread, NULL, send_all_the_time, &work) == 0);
  for (round = 0; round < rounds; round++) one_fork(arguments[1], arguments[2]);
  work.stop = 1;
  CHECK(pthread_join(thread, NULL) == 0);
  printf("%lu records were sent meanwhile\n", work.sent);
  fluvio_producer_free(work.producer);
  fluvio_client_free(client);
  host_free(h);
  check_no_live_objects();
  return 0;
}
