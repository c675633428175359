/*
 * `immure`: serves `immure run` by itself, and is the Python command line for all else.
 *
 * What it does is what cli/run.py does, in a fraction of the time that Python takes to start. Until it has connected it
 * may still leave the work to Python, and does at everything unusual: one place says what is wrong with an option, a
 * key or a path. From then on it speaks for itself.
 */
#include "exits.h"
#include "order.h"
#include "python.h"
#include "say.h"
#include "session.h"
#include "target.h"
#include "violations.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/auxv.h>
#include <sys/stat.h>
#include <time.h>

enum { LIFETIME_MS = 60000 };

/* /dev/null where 0, 1 or 2 is closed: else the socket to the daemon would become our standard output. */
static void hold_standard_descriptors(void)
{
  int fd;
  while ((fd = open("/dev/null", O_RDWR | O_CLOEXEC)) >= 0 && fd <= STDERR_FILENO)
    fcntl(fd, F_SETFD, 0);
  if (fd >= 0)
    close(fd);
}

/* Text is UTF-8 here. Python knows other encodings. */
static bool speaks_utf8(void)
{
  static const char *const names[] = {"LC_ALL", "LC_CTYPE", "LANG"};
  for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
    const char *const value = getenv(names[i]);
    if (value && value[0])
      return strcmp(value, "C") == 0 || strcmp(value, "POSIX") == 0 || strcasestr(value, "UTF-8") ||
             strcasestr(value, "UTF8");
  }
  return true;
}

/* Root that sudo started acts for its caller (cli/acting.py), whose groups the name service knows. */
static bool acts_for_another(void)
{
  const char *const caller = getenv("SUDO_UID");
  return geteuid() == 0 && caller && caller[0] && strcmp(caller, "0") != 0;
}

static void leave(int number)
{
  _exit(IMC_SIGNALLED + number);
}

/* SIGTERM and SIGHUP end us as Ctrl-C does: the connection closes, and with it the run. */
static void ended_by_us(void)
{
  const int numbers[] = {SIGINT, SIGTERM, SIGHUP};
  struct sigaction now, stop = {.sa_handler = leave};
  for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
    if (sigaction(numbers[i], NULL, &now) == 0 && now.sa_handler != SIG_IGN)   /* nohup, and a shell's background */
      sigaction(numbers[i], &stop, NULL);
  }
  signal(SIGPIPE, SIG_IGN);
}

/* The signed command, in the link. False: it does not fit. */
static bool put_command(struct imc_session *session, struct imc_target *target, const struct imc_order *order)
{
  static uint8_t room[IMC_MAX_FRAME];
  struct imc_pack payload = {.at = room, .room = sizeof room};
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  const uint64_t issued = (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
  randombytes_buf(session->nonce, sizeof session->nonce);
  imc_put_map(&payload, 6);
  imc_put_str(&payload, "aud");
  imc_put_str(&payload, target->daemon.id);
  imc_put_str(&payload, "cmd");
  imc_put_str(&payload, "run");
  imc_put_str(&payload, "args");
  if (!imc_put_arguments(&payload, order))
    return false;
  imc_put_str(&payload, "nonce");
  imc_put_bin(&payload, session->nonce, sizeof session->nonce);
  imc_put_str(&payload, "iat");
  imc_put_number(&payload, issued);
  imc_put_str(&payload, "exp");
  imc_put_number(&payload, issued + LIFETIME_MS);
  if (payload.full)
    return false;
  crypto_hash_sha256(session->digest, payload.at, payload.size);
  imc_seal(&session->link.out, IMC_COMMAND, (struct imc_bytes){payload.at, payload.size}, target->seed);
  return !session->link.out.full;
}

static struct imc_bytes text_of(const struct imc_value *map, const char *name, const char *otherwise)
{
  struct imc_value value;
  return imc_find(map, name, &value) && value.kind == IMC_STR ? value.bytes : imc_text(otherwise);
}

static void complain_of(const struct imc_value *said, const char *code)
{
  imc_complain(text_of(said, "code", code), text_of(said, "message", ""), text_of(said, "remedy", ""));
}

/* A limit that was asked for and is not held by its cgroup controller. */
static void note_weaker(const struct imc_options *options, const struct imc_result *result)
{
  const struct { const char *name; bool given; } limits[] = {
      {"memory", options->memory != NULL}, {"cpus", options->cpus != NULL}, {"pids", options->pids > 0}};
  struct imc_bytes parts[16] = {imc_text("this host holds limits by weaker means (immure doctor): ")};
  size_t count = 1;
  for (size_t i = 0; i < sizeof limits / sizeof limits[0]; i++) {
    struct imc_value means;
    if (!limits[i].given || !result->has_enforcement || !imc_find(&result->enforcement, limits[i].name, &means) ||
        means.kind != IMC_STR || imc_starts(means.bytes, "cgroup"))
      continue;
    if (count > 1)
      parts[count++] = imc_text("; ");
    parts[count++] = imc_text(limits[i].name);
    parts[count++] = imc_text(" by ");
    parts[count++] = means.bytes;
  }
  if (count > 1)
    imc_note(parts, count);
}

/* What the exit status cannot say, and the exit status. */
static int conclude(const struct imc_session *session, const struct imc_options *options)
{
  struct imc_error err;
  struct imc_result result;
  if (!session->reply.ok) {
    complain_of(&session->reply.said, "internal");
    return IMC_REFUSED;
  }
  if (imc_read_result(&session->reply, &session->streams, &result, &err) < 0) {
    imc_complain_of(&err);
    return IMC_REFUSED;
  }
  if (result.has_failure)
    complain_of(&result.failure, "setup_failed");
  else if (imc_explain(result.cause, &err))
    imc_complain_of(&err);
  const bool well = imc_is(result.cause, "exited") && result.exit_code == 0;
  if (!well && result.has_violations && !options->quiet)
    imc_note_violations(&result.violations);
  if (!options->quiet)
    note_weaker(options, &result);
  const struct imc_bytes failure = result.has_failure ? text_of(&result.failure, "code", "") : imc_text("");
  return imc_status(result.cause, result.exit_code, result.signal, failure);
}

int main(int argc, char **argv)
{
  static struct imc_session session;
  static struct imc_target target;
  static struct imc_order order;
  static struct imc_options options;
  struct imc_error err;
  struct stat input;
  char here[PATH_MAX];

  hold_standard_descriptors();
  if (getauxval(AT_SECURE)) {
    imc_complain(imc_text("setuid"), imc_text("this program is not made to be setuid"), imc_text("chmod u-s,g-s it"));
    return IMC_REFUSED;
  }
  if (argc < 3 || strcmp(argv[1], "run") != 0 || getenv("_IMMURE_COMPLETE") || !speaks_utf8() || acts_for_another() ||
      !imc_read_options(&options, argv + 2, (size_t)argc - 2) || !getcwd(here, sizeof here) || here[0] != '/' ||
      sodium_init() < 0 || !imc_settle(&target, &options, here) || !imc_make_order(&order, &options, here))
    imc_become_python(argc, argv);
  order.no_input = fstat(STDIN_FILENO, &input) == 0 && S_ISDIR(input.st_mode);
  session.daemon = &target.daemon;
  session.input = !order.no_input;
  imc_streams_begin(&session.streams);
  imc_link_begin(&session.link);
  const bool made = put_command(&session, &target, &order);
  sodium_memzero(target.seed, sizeof target.seed);
  if (!made || !imc_prepare_writable(&order))
    imc_become_python(argc, argv);
  ended_by_us();

  const int connected = imc_link_connect(&session.link, &target.address, &err);
  if (connected > 0)
    imc_become_python(argc, argv);
  if (connected == 0 && imc_converse(&session, &err) == 0)
    return conclude(&session, &options);
  if (err.code)
    imc_complain_of(&err);
  else
    complain_of(&session.reply.said, "internal");
  return IMC_REFUSED;
}
