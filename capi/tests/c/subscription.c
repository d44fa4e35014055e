/*
 * The connection of a client, watched while the server severs it: connected, lost, reconnecting, connected again, and the end
 * when the client is closed. Prints "watching", and goes on for each line of its standard input.
 * Arguments: endpoint, kind of host.
 */
#include "host.h"

/* The next document, waiting for it; NULL at the end. */
static fluvio_document *next(host *h, fluvio_subscription *subscription) {
  for (;;) {
    fluvio_document *document = NULL;
    fluvio_error *error = NULL;
    uint64_t id;
    switch (fluvio_subscription_take(subscription, &document, &error)) {
      case FLUVIO_STATUS_OK:
        return document;
      case FLUVIO_STATUS_EMPTY:
        id = h->next++;
        START(fluvio_subscription_ready(subscription, h->context, id, &error));
        host_done(h, id);
        break;
      case FLUVIO_STATUS_END:
        return NULL;
      default:
        FAIL("take: %s", fluvio_error_get_message(error));
    }
  }
}

/* Reads documents up to the one with this event; whether one with `other` was among them. */
static int until(host *h, fluvio_subscription *subscription, const char *event, const char *other) {
  int seen = 0;
  for (;;) {
    fluvio_document *document = next(h, subscription);
    const char *text;
    int found;
    CHECK(document != NULL);
    text = fluvio_document_get_text(document);
    CHECK(strlen(text) == fluvio_document_get_length(document) && strstr(text, "\"endpoint\"") != NULL);
    found = strstr(text, event) != NULL;
    seen = seen || strstr(text, other) != NULL;
    if (strstr(text, "\"lost\"") != NULL) CHECK(strstr(text, "\"error\"") != NULL);
    if (strstr(text, "\"reconnecting\"") != NULL) CHECK(strstr(text, "\"attempt\"") != NULL);
    fluvio_document_free(document);
    if (found) return seen;
  }
}

static fluvio_subscription *watch(host *h, fluvio_client *client) {
  uint64_t id = h->next++;
  START(fluvio_subscription_open(client, h->context, FLUVIO_SUBSCRIPTION_KIND_CONNECTION, NULL, id, &error));
  return (fluvio_subscription *)host_value(h, id, FLUVIO_VALUE_KIND_SUBSCRIPTION);
}

int main(int count, char **arguments) {
  host *h;
  fluvio_client *client;
  fluvio_subscription *first, *second;
  fluvio_document *document = NULL;
  uint64_t id, other;
  CHECK(count == 3);
  h = host_new(arguments[2]);
  client = host_connect(h, arguments[1]);
  first = watch(h, client);
  /* It starts with how things are. */
  CHECK(!until(h, first, "\"connected\"", "\"lost\""));
  CHECK(fluvio_subscription_take(first, &document, NULL) == FLUVIO_STATUS_EMPTY && document == NULL);

  /* One waiter; a cancelled wait makes room for the next one at once. */
  id = h->next++;
  other = h->next++;
  START(fluvio_subscription_ready(first, h->context, id, &error));
  REFUSED(fluvio_subscription_ready(first, h->context, other, &error), FLUVIO_ERROR_KIND_BUSY);
  fluvio_cancel(h->context, id);
  START(fluvio_subscription_ready(first, h->context, other, &error));
  host_cancelled(h, id);
  printf("watching\n");
  fflush(stdout);
  CHECK(getchar() == '\n');
  host_done(h, other);
  CHECK(until(h, first, "\"reconnecting\"", "\"lost\""));
  until(h, first, "\"connected\"", "");

  /* Everybody gets everything; it ends with the client. */
  second = watch(h, client);
  CHECK(!until(h, second, "\"connected\"", "\"lost\""));
  START(fluvio_client_close(client, h->context, id = h->next++, &error));
  host_done(h, id);
  REFUSED(fluvio_subscription_open(client, h->context, 0, NULL, id, &error), FLUVIO_ERROR_KIND_CLOSED);
  fluvio_client_free(client);
  CHECK(next(h, second) == NULL && next(h, first) == NULL);
  CHECK(fluvio_subscription_take(first, &document, NULL) == FLUVIO_STATUS_END && document == NULL);
  fluvio_subscription_free(first);
  fluvio_subscription_free(second);
  host_free(h);
  check_no_live_objects();
  return 0;
}
