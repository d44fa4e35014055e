/*
 * Sends while the server severs its connections, with SIGPIPE at its default, which would end the process: no signal
 * arrives, and every record is acknowledged. Sends until its standard input ends.
 * Arguments: endpoint, kind of host.
 */
#include "host.h"

#include <signal.h>

static const char TOPIC[] = "severed";

int main(int count, char **arguments) {
  enum { AT_ONCE = 50 };
  host *h;
  fluvio_client *client;
  fluvio_producer *producer;
  struct pollfd input;
  unsigned long sent = 0;
  CHECK(count == 3);
  CHECK(signal(SIGPIPE, SIG_DFL) != SIG_ERR);
  h = host_new(arguments[2]);
  client = host_connect(h, arguments[1]);
  host_create_topic(h, client, TOPIC, 1);
  producer = host_producer(h, client, TOPIC, "");
  input.fd = 0;
  input.events = POLLIN;
  printf("sending\n");
  fflush(stdout);
  do {
    uint64_t first = h->next, id;
    h->next += AT_ONCE;
    for (id = first; id < h->next; id++)
      START(fluvio_producer_send(producer, h->context, NULL, NULL, 0, (const uint8_t *)"record", 6, 0, id, &error));
    for (id = first; id < h->next; id++) host_done(h, id);
    sent += AT_ONCE;
    input.revents = 0;
  } while (poll(&input, 1, 0) == 0);
  printf("%lu records\n", sent);
  fluvio_producer_free(producer);
  fluvio_client_free(client);
  host_free(h);
  check_no_live_objects();
  return 0;
}
