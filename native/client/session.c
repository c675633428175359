#include "session.h"

#include "exits.h"
#include "say.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>

#define PINNED "check that daemon.pub is this daemon's"

/* Output on its way to our own descriptor. */
struct output {
  int fd;
  struct imc_bytes rest;
};

static _Noreturn void own_trouble(int error)
{
  if (error == EPIPE)
    _exit(IMC_NOBODY_READS);
  struct imc_error err;
  imc_fail(&err, "input_output", "look where it is redirected to", "our own input or output: %s",
           strerrordesc_np(error));
  imc_complain_of(&err);
  _exit(IMC_REFUSED);
}

static uint64_t now_ms(void)
{
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* --- frames --- */

static int unreadable(struct imc_error *err)
{
  char said[sizeof err->message];
  memcpy(said, err->message, sizeof said);
  return imc_fail(err, "untrusted_reply", PINNED, "the daemon's frame cannot be read: %s: %.*s", err->code,
                  (int)sizeof said - 128, said);
}

static int not_the_daemons(const struct imc_public *daemon, struct imc_error *err)
{
  /* A key that is none makes every signature fail: asked here, because it takes long, and a good one is never asked. */
  if (!imc_is_good_key(daemon))
    return imc_fail(err, "bad_key", "use an Ed25519 key: immure key new",
                    "the public key is not a point of large order");
  char said[sizeof err->message];
  memcpy(said, err->message, sizeof said);
  return imc_fail(err, "untrusted_reply", PINNED, "not signed by the pinned daemon %s: %.*s", daemon->id,
                  (int)sizeof said - 128, said);
}

static int take_reply(struct imc_session *session, struct imc_bytes payload, struct imc_error *err)
{
  struct imc_reply *const reply = &session->reply;
  if (imc_read_reply(payload, reply, err) < 0)
    return unreadable(err);
  if (reply->req.size == 0 && reply->ok)
    return imc_fail(err, "untrusted_reply", PINNED, "a result that names no request");
  if (reply->req.size == 0) {
    err->code = NULL;
    return -1;
  }
  if (memcmp(reply->req.at, session->digest, IMC_DIGEST) != 0)
    return 0;                      /* somebody else's answer */
  if (reply->re.size > 0 && memcmp(reply->re.at, session->nonce, IMC_NONCE) != 0)
    return imc_fail(err, "untrusted_reply", PINNED, "the reply names another nonce than the request that it digests");
  session->replied = true;
  return 0;
}

static int take_frame(struct imc_session *session, struct imc_bytes body, struct output *output, struct imc_error *err)
{
  struct imc_envelope envelope;
  if (imc_decode(body, &envelope, err) < 0)
    return unreadable(err);
  if (imc_is(envelope.type, IMC_DATA)) {
    struct imc_data data;
    if (imc_read_data(envelope.payload, &data, err) < 0)
      return unreadable(err);
    if (memcmp(data.re.at, session->nonce, IMC_NONCE) == 0) {
      output->fd = imc_streams_take(&session->streams, &data);
      output->rest = output->fd ? data.data : (struct imc_bytes){NULL, 0};
    }
    return 0;
  }
  const bool hello = imc_is(envelope.type, IMC_HELLO);
  if (!hello && !imc_is(envelope.type, IMC_REPLY))
    return 0;                      /* a later version's message */
  if (imc_verify_envelope(&envelope, session->daemon, err) < 0)
    return not_the_daemons(session->daemon, err);
  if (!hello)
    return take_reply(session, envelope.payload, err);
  session->greeted = true;
  return imc_read_hello(envelope.payload, err) < 0 ? unreadable(err) : 0;
}

/* --- our own input and output --- */

static void put_input(struct imc_session *session, const uint8_t *data, size_t size)
{
  static uint8_t room[IMC_MAX_DATA + 128];
  struct imc_pack payload = {.at = room, .room = sizeof room};
  imc_put_map(&payload, 3);
  imc_put_str(&payload, "re");
  imc_put_bin(&payload, session->nonce, IMC_NONCE);
  imc_put_str(&payload, "stream");
  imc_put_str(&payload, "stdin");
  imc_put_str(&payload, "data");
  imc_put_bin(&payload, data, size);
  imc_seal(&session->link.out, IMC_DATA, (struct imc_bytes){payload.at, payload.size}, NULL);
}

/* Called where a read does not wait. */
static void read_input(struct imc_session *session)
{
  static uint8_t room[IMC_MAX_DATA];
  const ssize_t got = read(STDIN_FILENO, room, sizeof room);
  if (got < 0) {
    if (errno != EAGAIN && errno != EINTR)
      own_trouble(errno);
    return;
  }
  imc_digest_add(&session->streams.in, (struct imc_bytes){room, (size_t)got});
  put_input(session, room, (size_t)got);
  session->input = got > 0;
}

/* A write that poll has called possible. Where input may come meanwhile it must not wait: PIPE_BUF bytes never do. */
static void write_output(const struct imc_session *session, struct output *output)
{
  enum { SMALL = 4096 };
  struct stat kind;
  size_t size = output->rest.size;
  const bool alone = !session->input && !imc_link_has_to_send(&session->link);
  if (!alone && size > SMALL && !(fstat(output->fd, &kind) == 0 && S_ISREG(kind.st_mode)))
    size = SMALL;
  const ssize_t put = write(output->fd, output->rest.at, size);
  if (put >= 0) {
    output->rest.at += put;
    output->rest.size -= (size_t)put;
  } else if (errno != EAGAIN && errno != EINTR) {
    own_trouble(errno);
  }
}

/* --- the loop --- */

static int wait_and_do(struct imc_session *session, struct output *output, uint64_t patience, struct imc_error *err)
{
  struct imc_link *const link = &session->link;
  const bool writing = output->rest.size > 0, sending = imc_link_has_to_send(link);
  struct pollfd found[] = {
      /* While our output is taken slowly nothing more is read: the daemon then waits, and the command. */
      {.fd = writing && !sending ? -1 : link->fd, .events = (short)((writing ? 0 : POLLIN) | (sending ? POLLOUT : 0))},
      {.fd = session->input && !sending && !link->unheard ? STDIN_FILENO : -1, .events = POLLIN},
      {.fd = writing ? output->fd : -1, .events = POLLOUT},
  };
  int left = -1;
  if (!session->greeted) {
    const uint64_t now = now_ms();
    if (now >= patience)
      return imc_fail(err, "connection_lost", "look whether the daemon runs: immure status",
                      "the daemon said no hello within %d s", IMC_HELLO_MS / 1000);
    left = (int)(patience - now);
  }
  if (poll(found, sizeof found / sizeof found[0], left) < 0)
    return 0;                      /* a signal: look again */
  if (found[2].revents)
    write_output(session, output);
  if (found[1].revents)
    read_input(session);
  if ((found[0].revents & ~POLLIN) != 0 || imc_link_has_to_send(link))
    imc_link_send(link);
  return !writing && (found[0].revents & ~POLLOUT) != 0 ? imc_link_receive(link, err) : 0;
}

int imc_converse(struct imc_session *session, struct imc_error *err)
{
  struct output output = {.fd = -1};
  const uint64_t patience = now_ms() + IMC_HELLO_MS;
  /* Input that is there already, or has ended already, goes along with the command. */
  struct pollfd there = {.fd = STDIN_FILENO, .events = POLLIN};
  while (session->input && session->link.out.size < IMC_MAX_DATA && poll(&there, 1, 0) > 0)
    read_input(session);
  imc_link_send(&session->link);
  while (!session->replied) {
    struct imc_bytes body;
    const int frame = output.rest.size > 0 ? 0 : imc_link_frame(&session->link, &body, err);
    if (frame < 0)
      return -1;
    if (frame > 0 ? take_frame(session, body, &output, err) < 0 : wait_and_do(session, &output, patience, err) < 0)
      return -1;
  }
  return 0;
}
