/*
 * What the C tests share: a host that waits for completions, through a plain callback, through a queue (blocking), or by
 * polling a queue's descriptor (eventfd or socket pair); and checks that end the program with a message.
 *
 * Invariant: every completion is asked for with host_await or host_free fails, so a completion too many is noticed.
 */
#ifndef HOST_H
#define HOST_H

#include <fluvio.h>

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { PATIENCE_MS = 60000 };

#define FAIL(...)                                        \
  do {                                                   \
    fprintf(stderr, "%s:%d: ", __FILE__, __LINE__);      \
    fprintf(stderr, __VA_ARGS__);                        \
    fprintf(stderr, "\n");                               \
    exit(1);                                             \
  } while (0)
#define CHECK(condition)                     \
  do {                                       \
    if (!(condition)) FAIL("%s", #condition); \
  } while (0)
/* A call that must be accepted. */
#define START(call)                                                                         \
  do {                                                                                      \
    fluvio_error *error = NULL;                                                             \
    if ((call) != FLUVIO_STATUS_OK) FAIL("%s: %s", #call, fluvio_error_message(error));     \
  } while (0)
/* A call that must be refused with this kind. */
#define REFUSED(call, expected)                                                                              \
  do {                                                                                                       \
    fluvio_error *error = NULL;                                                                              \
    CHECK((call) == FLUVIO_STATUS_ERROR);                                                                    \
    CHECK(error != NULL);                                                                                    \
    if (fluvio_error_get_kind(error) != (expected)) FAIL("%s: %s", #call, fluvio_error_message(error));      \
    CHECK(strlen(fluvio_error_message(error)) > 0);                                                          \
    fluvio_error_free(error);                                                                                \
  } while (0)

typedef struct host {
  fluvio_context *context;
  fluvio_queue *queue; /* NULL: a plain callback */
  int polls;
  pthread_mutex_t lock;
  pthread_cond_t changed;
  fluvio_completion *items; /* arrived, not yet asked for */
  size_t count;
  size_t capacity;
  int released;
  pthread_t caller;
  uint64_t next;
} host;

/* Exported only when the library is built for tests. */
#ifdef __cplusplus
extern "C"
#else
extern
#endif
size_t fluvio_live_objects(void) __attribute__((weak));

static inline void host_keep(host *self, const fluvio_completion *completion) {
  if (self->count == self->capacity) {
    self->capacity = self->capacity == 0 ? 64 : self->capacity * 2;
    self->items = (fluvio_completion *)realloc(self->items, self->capacity * sizeof *self->items);
    CHECK(self->items != NULL);
  }
  self->items[self->count++] = *completion;
}

static inline void host_complete(void *context, const fluvio_completion *completion) {
  host *self = (host *)context;
  pthread_mutex_lock(&self->lock);
  CHECK(!self->released);
  CHECK(!pthread_equal(pthread_self(), self->caller));
  host_keep(self, completion);
  pthread_cond_broadcast(&self->changed);
  pthread_mutex_unlock(&self->lock);
}

static inline void host_release(void *context) {
  host *self = (host *)context;
  pthread_mutex_lock(&self->lock);
  CHECK(!self->released);
  self->released = 1;
  pthread_cond_broadcast(&self->changed);
  pthread_mutex_unlock(&self->lock);
}

static inline host *host_new(const char *kind) {
  host *self = (host *)calloc(1, sizeof *self);
  fluvio_sink sink;
  fluvio_error *error = NULL;
  CHECK(self != NULL);
  pthread_mutex_init(&self->lock, NULL);
  pthread_cond_init(&self->changed, NULL);
  self->caller = pthread_self();
  self->next = 1;
  if (strcmp(kind, "callback") == 0) {
    sink.complete = host_complete;
    sink.release = host_release;
    sink.context = self;
  } else {
    self->polls = strcmp(kind, "queue") != 0;
    self->queue = fluvio_queue_new(strcmp(kind, "socket") == 0 ? FLUVIO_QUEUE_SOCKET : 0, &error);
    CHECK(self->queue != NULL);
    CHECK(fluvio_queue_sink(self->queue, &sink) == FLUVIO_STATUS_OK);
  }
  self->context = fluvio_context_new(&sink, &error);
  if (self->context == NULL) FAIL("fluvio_context_new: %s", fluvio_error_message(error));
  return self;
}

/* Waits for more completions; the lock is held and stays held. */
static inline void host_wait(host *self) {
  if (self->queue == NULL) {
    struct timespec deadline;
    clock_gettime(CLOCK_REALTIME, &deadline);
    deadline.tv_sec += PATIENCE_MS / 1000;
    if (pthread_cond_timedwait(&self->changed, &self->lock, &deadline) == ETIMEDOUT) FAIL("no completion came");
  } else {
    fluvio_completion out[16];
    size_t count, index;
    if (self->polls) {
      struct pollfd entry;
      entry.fd = fluvio_queue_fd(self->queue);
      entry.events = POLLIN;
      entry.revents = 0;
      if (poll(&entry, 1, PATIENCE_MS) != 1) FAIL("the queue's descriptor did not become readable");
      count = fluvio_queue_drain(self->queue, out, 16);
    } else {
      count = fluvio_queue_wait(self->queue, out, 16, PATIENCE_MS);
      if (count == 0) FAIL("no completion came");
    }
    for (index = 0; index < count; index++) host_keep(self, &out[index]);
  }
}

/* Waits for the completion of `user_data`. */
static inline fluvio_completion host_await(host *self, uint64_t user_data) {
  pthread_mutex_lock(&self->lock);
  for (;;) {
    size_t index;
    for (index = 0; index < self->count; index++) {
      if (self->items[index].user_data == user_data) {
        fluvio_completion found = self->items[index];
        self->items[index] = self->items[--self->count];
        pthread_mutex_unlock(&self->lock);
        CHECK(found.reserved == 0);
        return found;
      }
    }
    host_wait(self);
  }
}

/* Waits for a completion that must be OK and carry `kind`; gives its value. */
static inline void *host_value(host *self, uint64_t user_data, uint32_t kind) {
  fluvio_completion done = host_await(self, user_data);
  if (done.status == FLUVIO_STATUS_ERROR) FAIL("failed: %s", fluvio_error_message((fluvio_error *)done.value));
  CHECK(done.status == FLUVIO_STATUS_OK);
  CHECK(done.kind == kind);
  CHECK((done.value == NULL) == (kind == FLUVIO_VALUE_KIND_NONE));
  return done.value;
}

static inline void host_done(host *self, uint64_t user_data) { host_value(self, user_data, FLUVIO_VALUE_KIND_NONE); }

/* Waits for a completion that must be an error of this kind. */
static inline void host_failed(host *self, uint64_t user_data, fluvio_error_kind kind) {
  fluvio_completion done = host_await(self, user_data);
  CHECK(done.status == FLUVIO_STATUS_ERROR && done.kind == FLUVIO_VALUE_KIND_ERROR);
  if (fluvio_error_get_kind((fluvio_error *)done.value) != kind)
    FAIL("another error than kind %d: %s", (int)kind, fluvio_error_message((fluvio_error *)done.value));
  fluvio_error_free((fluvio_error *)done.value);
}

static inline void host_cancelled(host *self, uint64_t user_data) {
  fluvio_completion done = host_await(self, user_data);
  CHECK(done.status == FLUVIO_STATUS_CANCELLED && done.kind == FLUVIO_VALUE_KIND_NONE && done.value == NULL);
}

/* Frees the context and waits for `release`; what is still pending has to be asked for afterwards. */
static inline void host_close(host *self) {
  fluvio_context_free(self->context);
  self->context = NULL;
  if (self->queue == NULL) {
    pthread_mutex_lock(&self->lock);
    while (!self->released) host_wait(self);
    pthread_mutex_unlock(&self->lock);
  }
}

static inline void host_free(host *self) {
  if (self->context != NULL) host_close(self);
  if (self->count != 0) FAIL("%zu completions that nobody expects", self->count);
  fluvio_queue_free(self->queue);
  pthread_cond_destroy(&self->changed);
  pthread_mutex_destroy(&self->lock);
  free(self->items);
  free(self);
}

/* Nothing is left that a caller would have to free, once the library has dropped what nobody asked for. */
static inline void check_no_live_objects(void) {
  if (fluvio_live_objects) {
    int patience;
    for (patience = 0; fluvio_live_objects() != 0; patience++) {
      struct timespec pause = {0, 1000000};
      if (patience == 10000) FAIL("%zu live objects are left", fluvio_live_objects());
      nanosleep(&pause, NULL);
    }
    printf("no live objects are left\n");
  }
}

static inline fluvio_client *host_connect(host *self, const char *endpoint) {
  char options[200];
  uint64_t id = self->next++;
  int length = snprintf(options, sizeof options, "{\"endpoint\": \"%s\"}", endpoint);
  START(fluvio_connect(self->context, options, (size_t)length, id, &error));
  return (fluvio_client *)host_value(self, id, FLUVIO_VALUE_KIND_CLIENT);
}

static inline void host_create_topic(host *self, fluvio_client *client, const char *name, int partitions) {
  char document[200];
  uint64_t id = self->next++;
  int length = snprintf(document, sizeof document, "{\"name\": \"%s\", \"partitions\": %d}", name, partitions);
  START(fluvio_admin_create(client, self->context, FLUVIO_OBJECT_TOPIC, document, (size_t)length, id, &error));
  host_done(self, id);
}

static inline void host_delete_topic(host *self, fluvio_client *client, const char *name) {
  uint64_t id = self->next++;
  START(fluvio_admin_delete(client, self->context, FLUVIO_OBJECT_TOPIC, name, strlen(name), id, &error));
  host_done(self, id);
}

static inline fluvio_producer *host_producer(host *self, fluvio_client *client, const char *topic, const char *options) {
  uint64_t id = self->next++;
  START(fluvio_producer_open(client, self->context, topic, strlen(topic), options, strlen(options), id, &error));
  return (fluvio_producer *)host_value(self, id, FLUVIO_VALUE_KIND_PRODUCER);
}

static inline fluvio_consumer *host_consumer(host *self, fluvio_client *client, const char *topic, const char *options) {
  uint64_t id = self->next++;
  START(fluvio_consumer_open(client, self->context, topic, strlen(topic), options, strlen(options), id, &error));
  return (fluvio_consumer *)host_value(self, id, FLUVIO_VALUE_KIND_CONSUMER);
}

/* The next batch, waiting for it. */
static inline fluvio_batch *host_take(host *self, fluvio_consumer *consumer, fluvio_batch_view *view) {
  for (;;) {
    fluvio_batch *batch = NULL;
    fluvio_error *error = NULL;
    uint64_t id;
    switch (fluvio_consumer_take(consumer, &batch, view, &error)) {
      case FLUVIO_STATUS_OK:
        return batch;
      case FLUVIO_STATUS_EMPTY:
        id = self->next++;
        START(fluvio_consumer_ready(consumer, self->context, id, &error));
        host_done(self, id);
        break;
      default:
        FAIL("take: %s", fluvio_error_message(error));
    }
  }
}

#endif
