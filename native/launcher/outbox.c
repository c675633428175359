#define _GNU_SOURCE
#include "outbox.h"
#include "util.h"

#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

struct imd_letter {
  STAILQ_ENTRY(imd_letter) link;
  uint32_t type;
  uint64_t id;
  struct imd_fds fds;
  size_t size;
  char body[];
};

void imd_outbox_open(struct imd_outbox *outbox, int broker)
{
  *outbox = (struct imd_outbox){.broker = broker};
  STAILQ_INIT(&outbox->letters);
}

/* True when the packet is off our hands: sent, or nobody is there to take it. */
static bool deliver(struct imd_outbox *outbox, uint32_t type, uint64_t id, const void *body, size_t size,
                    const int *fds, uint32_t nfds)
{
  const struct iovec piece = {(void *)(uintptr_t)body, size};
  if (imd_send_packet(outbox->broker, type, id, &piece, 1, fds, nfds, MSG_DONTWAIT) == 0)
    return true;
  switch (errno) {
  case EAGAIN:
    return false;
  case ENOMEM:
  case ENOBUFS:
  case ETOOMANYREFS:
    /* Not the socket is full, the kernel is: the socket stays writable, so a nap keeps this from spinning. */
    nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    return false;
  default:
    outbox->broken = true;
    return true;
  }
}

static void discard(struct imd_outbox *outbox)
{
  struct imd_letter *letter = STAILQ_FIRST(&outbox->letters);
  STAILQ_REMOVE_HEAD(&outbox->letters, link);
  imd_fds_drop(&letter->fds);
  free(letter);
}

void imd_outbox_put(struct imd_outbox *outbox, uint32_t type, uint64_t id, const void *body, size_t size,
                    const int *fds, uint32_t nfds)
{
  if (outbox->broken || (!imd_outbox_waits(outbox) && deliver(outbox, type, id, body, size, fds, nfds)))
    return;
  struct imd_letter *letter = imd_allocate(sizeof *letter + size);
  letter->type = type;
  letter->id = id;
  letter->size = size;
  if (size > 0)
    memcpy(letter->body, body, size);
  for (uint32_t i = 0; i < nfds; i++) {
    const int copy = fcntl(fds[i], F_DUPFD_CLOEXEC, 3);
    if (copy < 0) {
      /* The broker must not take one descriptor for another. */
      imd_log("message %u of %llu is lost: %s", type, (unsigned long long)id, strerror(errno));
      imd_fds_drop(&letter->fds);
      free(letter);
      outbox->broken = true;
      return;
    }
    letter->fds.fd[letter->fds.count++] = copy;
  }
  STAILQ_INSERT_TAIL(&outbox->letters, letter, link);
}

void imd_outbox_fail(struct imd_outbox *outbox, uint64_t run, const struct imd_error *error)
{
  struct {
    struct imd_failed head;
    char text[sizeof error->text];
  } body = {.head = {.stage = error->stage, .step = error->step, .error = error->error}};
  const size_t length = strnlen(error->text, sizeof error->text);
  memcpy(body.text, error->text, length);
  imd_outbox_put(outbox, IMD_FAILED, run, &body, sizeof body.head + length, NULL, 0);
}

void imd_outbox_flush(struct imd_outbox *outbox)
{
  struct imd_letter *letter;
  while ((letter = STAILQ_FIRST(&outbox->letters)) &&
         (outbox->broken || deliver(outbox, letter->type, letter->id, letter->body, letter->size, letter->fds.fd,
                                    letter->fds.count)))
    discard(outbox);
}
