#include "say.h"

#include "exits.h"
#include "text.h"

#include <errno.h>
#include <poll.h>

/* Lines are gathered, so that a short one is one write: others may write to the same terminal. */
static char gathered[4096];
static size_t used;

static void flush(void)
{
  size_t done = 0;
  while (done < used) {
    const ssize_t put = write(STDERR_FILENO, gathered + done, used - done);
    if (put >= 0)
      done += (size_t)put;
    else if (errno == EAGAIN)
      poll(&(struct pollfd){.fd = STDERR_FILENO, .events = POLLOUT}, 1, -1);
    else if (errno != EINTR)
      _exit(errno == EPIPE ? IMC_NOBODY_READS : IMC_REFUSED);
  }
  used = 0;
}

static void put_raw(const char *bytes, size_t size)
{
  if (used + size > sizeof gathered)
    flush();
  memcpy(gathered + used, bytes, size);
  used += size;
}

static void put_own(const char *text)
{
  put_raw(text, strlen(text));
}

static void put(struct imc_bytes text)
{
  while (text.size > 0) {
    char said[IMC_ESCAPED];
    const size_t length = imc_escape(text, said);
    put_own(said);
    text.at += length;
    text.size -= length;
  }
}

void imc_complain(struct imc_bytes code, struct imc_bytes message, struct imc_bytes remedy)
{
  put_own("immure: ");
  put(code);
  put_own(": ");
  put(message);
  put_own("\n");
  if (remedy.size > 0) {
    put_own("remedy: ");
    put(remedy);
    put_own("\n");
  }
  flush();
}

void imc_complain_of(const struct imc_error *err)
{
  imc_complain(imc_text(err->code), imc_text(err->message), imc_text(err->remedy));
}

void imc_note(const struct imc_bytes *parts, size_t count)
{
  put_own("immure: note: ");
  for (size_t i = 0; i < count; i++)
    put(parts[i]);
  put_own("\n");
  flush();
}
