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
#include "text.h"
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

static const struct { const char *field, *variable; } names[IMC_NAMES] = {
    [IMC_PERSONA] = {"persona", "IMMURE_PERSONA"}, [IMC_TENANT] = {"tenant", "IMMURE_TENANT"},
    [IMC_SUB] = {"sub", "IMMURE_SUB"},             [IMC_PROJECT] = {"project", "IMMURE_PROJECT"},
    [IMC_SESSION] = {"session", "IMMURE_SESSION"},
};

/* Under which names: by option, then by variable. False: one of them, or a chain of certificates, is Python's to say. */
static bool settle_names(struct imc_options *options)
{
  const char *const chain = getenv("IMMURE_CERTIFICATE");
  for (size_t i = 0; i < IMC_NAMES; i++) {
    const char *const given = getenv(names[i].variable);
    if (!options->names[i] && given && given[0])
      options->names[i] = given;
    if (options->names[i] && !imc_is_utf8(imc_text(options->names[i])))
      return false;
  }
  return !chain || !chain[0];
}

static void put_names(struct imc_pack *payload, const struct imc_options *options)
{
  for (size_t i = 0; i < IMC_NAMES; i++) {
    if (options->names[i]) {
      imc_put_str(payload, names[i].field);
      imc_put_str(payload, options->names[i]);
    }
  }
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
  size_t carried = 0;
  for (size_t i = 0; i < IMC_NAMES; i++)
    carried += order->options->names[i] != NULL;
  imc_put_map(&payload, 6 + carried);
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
  put_names(&payload, order->options);
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

/* Called by the name of another sandbox's helper, through a link, this is `compat NAME`, which Python serves. */
static void become_another(int argc, char **argv)
{
  static const char *const tools[] = {"codex-linux-sandbox", "srt"};   /* as TOOLS in cli/__init__.py */
  const char *const slash = argc > 0 ? strrchr(argv[0], '/') : NULL;
  for (size_t i = 0; argc > 0 && i < sizeof tools / sizeof tools[0]; i++) {
    if (strcmp(slash ? slash + 1 : argv[0], tools[i]) != 0)
      continue;
    char **const words = calloc((size_t)argc + 3, sizeof *words);
    if (!words)
      _exit(IMC_REFUSED);
    words[0] = argv[0];
    words[1] = (char[]){"compat"};
    words[2] = (char *)(uintptr_t)tools[i];
    memcpy(words + 3, argv + 1, ((size_t)argc - 1) * sizeof *words);
    imc_become_python(argc + 2, words);
  }
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
  become_another(argc, argv);
  if (argc < 3 || strcmp(argv[1], "run") != 0 || getenv("_IMMURE_COMPLETE") || !speaks_utf8() || acts_for_another() ||
      !imc_read_options(&options, argv + 2, (size_t)argc - 2) || !settle_names(&options) || !getcwd(here, sizeof here) || here[0] != '/' ||
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
