/*
 * A round trip with a plain callback: connect, create a topic, send ten records, read them back, delete the topic.
 *
 *   cc -std=c11 callback.c -lfluvio_cffi -pthread -o callback && ./callback 127.0.0.1:9003
 *
 * The callback runs on threads of the library. Here it only stores the completion and wakes the main thread, which has at
 * most one operation pending at a time.
 */
#include <fluvio.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char TOPIC[] = "example-callback";

struct mailbox {
  pthread_mutex_t lock;
  pthread_cond_t changed;
  fluvio_completion completion;
  int full;
  int released;
};

static void on_complete(void *context, const fluvio_completion *completion) {
  struct mailbox *box = (struct mailbox *)context;
  pthread_mutex_lock(&box->lock);
  box->completion = *completion; /* the value in it is ours now */
  box->full = 1;
  pthread_cond_signal(&box->changed);
  pthread_mutex_unlock(&box->lock);
}

/* Called once, after the last on_complete: only now may the mailbox go. */
static void on_release(void *context) {
  struct mailbox *box = (struct mailbox *)context;
  pthread_mutex_lock(&box->lock);
  box->released = 1;
  pthread_cond_signal(&box->changed);
  pthread_mutex_unlock(&box->lock);
}

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

/* Waits for the completion of a call that returned `status`. */
static fluvio_completion await(struct mailbox *box, const char *what, fluvio_status status, fluvio_error *error) {
  fluvio_completion done;
  if (status != FLUVIO_STATUS_OK) fail(what, error); /* refused: no completion will come */
  pthread_mutex_lock(&box->lock);
  while (!box->full) pthread_cond_wait(&box->changed, &box->lock);
  box->full = 0;
  done = box->completion;
  pthread_mutex_unlock(&box->lock);
  if (done.status != FLUVIO_STATUS_OK) fail(what, (fluvio_error *)done.value);
  return done;
}

int main(int count, char **arguments) {
  struct mailbox box;
  fluvio_error *error = NULL;
  fluvio_sink sink;
  fluvio_context *context;
  fluvio_options *options;
  fluvio_client *client;
  fluvio_producer *producer;
  fluvio_consumer *consumer;
  fluvio_completion done;
  fluvio_status status;
  char text[200];
  size_t read = 0;
  int number;
  if (count != 2) {
    fprintf(stderr, "usage: %s HOST:PORT\n", arguments[0]);
    return 2;
  }
  memset(&box, 0, sizeof box);
  pthread_mutex_init(&box.lock, NULL);
  pthread_cond_init(&box.changed, NULL);
  sink.size = sizeof sink;
  sink.complete = on_complete;
  sink.release = on_release;
  sink.context = &box;
  context = fluvio_context_new(&sink, &error);
  if (context == NULL) fail("context", error);

  /* user_data may always be 1: no two operations are pending at once. */
  snprintf(text, sizeof text, "{\"endpoint\": \"%s\"}", arguments[1]);
  options = new_options(text);
  status = fluvio_connect(context, options, 1, &error);
  fluvio_options_free(options); /* what the call needs of them was copied */
  client = (fluvio_client *)await(&box, "connect", status, error).value;
  printf("platform %s at %s\n", fluvio_client_get_platform_version(client), fluvio_client_get_endpoint(client));

  snprintf(text, sizeof text, "{\"name\": \"%s\"}", TOPIC);
  options = new_options(text);
  status = fluvio_admin_create(client, context, FLUVIO_OBJECT_KIND_TOPIC, options, 1, &error);
  fluvio_options_free(options);
  await(&box, "create", status, error);

  status = fluvio_producer_open(client, context, TOPIC, strlen(TOPIC), NULL, 1, &error);
  producer = (fluvio_producer *)await(&box, "producer", status, error).value;
  for (number = 0; number < 10; number++) {
    int length = snprintf(text, sizeof text, "record %d", number);
    status = fluvio_producer_send(producer, context, NULL, NULL, 0, (const uint8_t *)text, (size_t)length,
                                  FLUVIO_ANY_PARTITION, 1, &error);
    done = await(&box, "send", status, error);
    printf("sent to partition %u at offset %lld\n", done.partition, (long long)done.offset);
  }

  options = new_options("{\"start\": {\"beginning\": 0}}");
  status = fluvio_consumer_open(client, context, TOPIC, strlen(TOPIC), options, 1, &error);
  fluvio_options_free(options);
  consumer = (fluvio_consumer *)await(&box, "consumer", status, error).value;
  while (read < 10) {
    fluvio_batch *batch;
    fluvio_batch_view view;
    size_t index;
    status = fluvio_consumer_take(consumer, &batch, &view, &error);
    if (status == FLUVIO_STATUS_EMPTY) {
      status = fluvio_consumer_ready(consumer, context, 1, &error);
      await(&box, "ready", status, error);
      continue;
    }
    if (status != FLUVIO_STATUS_OK) fail("take", error);
    for (index = 0; index < view.count; index++) {
      printf("read %.*s\n", (int)(view.value_ends[index] - view.value_starts[index]),
             (const char *)view.data + view.value_starts[index]);
    }
    read += view.count;
    fluvio_batch_free(batch);
  }

  status = fluvio_producer_close(producer, context, 1, &error);
  await(&box, "close", status, error);
  status = fluvio_admin_delete(client, context, FLUVIO_OBJECT_KIND_TOPIC, TOPIC, strlen(TOPIC), 1, &error);
  await(&box, "delete", status, error);
  fluvio_consumer_free(consumer);
  fluvio_producer_free(producer);
  fluvio_client_free(client);
  fluvio_context_free(context);
  pthread_mutex_lock(&box.lock);
  while (!box.released) pthread_cond_wait(&box.changed, &box.lock);
  pthread_mutex_unlock(&box.lock);
  return 0;
}
