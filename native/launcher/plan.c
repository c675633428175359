#define _GNU_SOURCE
#include "plan.h"

#include <limits.h>
#include <string.h>
#include <sys/resource.h>

enum { ANY_COUNT = UINT16_MAX, MAX_NAME = 64 };

enum {
  OF_RUN = 1 << IMD_PLAN_RUN, OF_SANDBOX = 1 << IMD_PLAN_SANDBOX, OF_EXEC = 1 << IMD_PLAN_EXEC,
  MOUNTED = OF_RUN | OF_SANDBOX,
  EXECUTED = OF_RUN | OF_EXEC,
  ANY = OF_RUN | OF_SANDBOX | OF_EXEC,
};

struct rule {
  uint32_t op;
  uint16_t numbers, strings;
  bool repeats, required;
  uint8_t kinds;                   /* of plan in which it may be, and must where it is required */
  const char *name;
};

/* In protocol.h's order; BIND to the last before SEAL_ROOT share a rank, see rank_of. */
static const struct rule rules[] = {
    {IMD_OP_DEADLINES, 3, 0, false, true, ANY, "DEADLINES"},
    {IMD_OP_CGROUP, 6, 2, false, true, ANY, "CGROUP"},
    {IMD_OP_COLLECT, 1, 1, true, false, EXECUTED, "COLLECT"},
    {IMD_OP_TERMINAL, 2, 0, false, false, OF_EXEC, "TERMINAL"},
    {IMD_OP_ROOTFS, 0, 1, false, false, MOUNTED, "ROOTFS"},
    {IMD_OP_IMAGE, 3, 1, false, false, MOUNTED, "IMAGE"},
    {IMD_OP_BIND, 1, ANY_COUNT, true, false, MOUNTED, "BIND"},
    {IMD_OP_TMPFS, 4, 1, true, false, MOUNTED, "TMPFS"},
    {IMD_OP_HIDE, 0, 1, true, false, MOUNTED, "HIDE"},
    {IMD_OP_PROTECT, 1, 1, true, false, MOUNTED, "PROTECT"},
    {IMD_OP_FILE, 1, 2, true, false, MOUNTED, "FILE"},
    {IMD_OP_CAPTURE, 3, ANY_COUNT, true, false, OF_SANDBOX, "CAPTURE"},
    {IMD_OP_RESTORE, 3, 2, true, false, OF_SANDBOX, "RESTORE"},
    {IMD_OP_VOLUME, 3, 2, true, false, MOUNTED, "VOLUME"},
    {IMD_OP_SEAL_ROOT, 0, 0, false, true, MOUNTED, "SEAL_ROOT"},
    {IMD_OP_LOOPBACK, 0, 0, false, false, MOUNTED, "LOOPBACK"},
    {IMD_OP_RLIMIT, 3, 0, true, false, EXECUTED, "RLIMIT"},
    {IMD_OP_AFFINITY, 2, 1, false, false, EXECUTED, "AFFINITY"},
    {IMD_OP_UMASK, 1, 0, false, false, EXECUTED, "UMASK"},
    {IMD_OP_IDENTITY, 2, 0, false, true, ANY, "IDENTITY"},
    {IMD_OP_DROP_CAPABILITIES, 0, 0, false, true, EXECUTED, "DROP_CAPABILITIES"},
    {IMD_OP_NO_NEW_PRIVS, 0, 0, false, true, EXECUTED, "NO_NEW_PRIVS"},
    {IMD_OP_LANDLOCK, 2, 0, false, false, EXECUTED, "LANDLOCK"},
    {IMD_OP_PIN, 0, 0, false, false, EXECUTED, "PIN"},
    {IMD_OP_SECCOMP, 0, 1, false, true, EXECUTED, "SECCOMP"},
    {IMD_OP_EXPLAIN, 1, 1, false, false, EXECUTED, "EXPLAIN"},
    {IMD_OP_EXEC, 1, ANY_COUNT, false, true, EXECUTED, "EXEC"},
};
enum { RULES = sizeof rules / sizeof rules[0] };

#define refuse(err, ...) imd_fail((err), IMD_STAGE_PLAN, 0, __VA_ARGS__)

static uint32_t landlock_rung;

void imd_plan_require_landlock(uint32_t rung)
{
  landlock_rung = rung;
}

static const struct rule *rule_of(uint32_t op)
{
  for (size_t i = 0; i < RULES; i++)
    if (rules[i].op == op)
      return &rules[i];
  return NULL;
}

/* PIN's number is its latest neighbour's, and its place before the filter: nothing comes between that and EXEC. */
static uint32_t rank_of(uint32_t op)
{
  if (op == IMD_OP_PIN)
    return 2 * IMD_OP_LANDLOCK + 1;
  return 2 * (op >= IMD_OP_BIND && op < IMD_OP_SEAL_ROOT ? (uint32_t)IMD_OP_BIND : op);
}

/* What a string of this length takes in a plan, its length field included: 8-aligned, at least one NUL. */
static size_t string_space(uint32_t length)
{
  return (sizeof(uint32_t) + (size_t)length + 1 + 7) & ~(size_t)7;
}

bool imd_plan_next(struct imd_plan_cursor *cursor, struct imd_plan_step *step)
{
  const struct imd_plan *plan = cursor->plan;
  if (cursor->offset == 0) {
    cursor->offset = sizeof *plan;
    cursor->index = 0;
  }
  if (cursor->index >= plan->steps)
    return false;

  const char *at = (const char *)cursor->plan + cursor->offset;
  const struct imd_step *head = (const void *)at;
  *step = (struct imd_plan_step){
      .index = cursor->index,
      .op = head->op,
      .number_count = head->numbers,
      .string_count = head->strings,
      .numbers = (const void *)(at + sizeof *head),
      .strings = at + sizeof *head + head->numbers * sizeof(uint64_t),
  };
  const char *end = step->strings;
  for (uint16_t i = 0; i < head->strings; i++)
    imd_plan_string(&end, NULL);
  cursor->offset = (size_t)(end - (const char *)cursor->plan);
  cursor->index++;
  return true;
}

const char *imd_plan_string(const char **cursor, uint32_t *length)
{
  uint32_t size;
  memcpy(&size, *cursor, sizeof size);
  const char *string = *cursor + sizeof size;
  if (length)
    *length = size;
  *cursor += string_space(size);
  return string;
}

const char *imd_plan_string_at(const struct imd_plan_step *step, uint16_t number, uint32_t *length)
{
  const char *cursor = step->strings;
  const char *string = NULL;
  for (uint16_t i = 0; i <= number; i++)
    string = imd_plan_string(&cursor, length);
  return string;
}

/* The walk that trusts nothing: `*offset` is past a whole step when it answers 0. */
static int check_shape(const char *plan, size_t length, size_t *offset, struct imd_error *err)
{
  struct imd_step head;
  size_t at = *offset;
  if (length - at < sizeof head)
    return refuse(err, "the plan ends within a step");
  memcpy(&head, plan + at, sizeof head);
  at += sizeof head;

  const size_t numbers = head.numbers * sizeof(uint64_t);
  if (length - at < numbers)
    return refuse(err, "the plan ends within a step's numbers");
  at += numbers;

  for (uint16_t i = 0; i < head.strings; i++) {
    uint32_t size;
    if (length - at < sizeof size)
      return refuse(err, "the plan ends within a step's strings");
    memcpy(&size, plan + at, sizeof size);
    if (size > IMD_MAX_STRING)
      return refuse(err, "string %u is longer than %d bytes", i, IMD_MAX_STRING);
    const size_t space = string_space(size);
    if (length - at < space)
      return refuse(err, "the plan ends within string %u", i);
    for (size_t pad = sizeof size + size; pad < space; pad++)
      if (plan[at + pad] != '\0')
        return refuse(err, "string %u is not padded with NULs", i);
    at += space;
  }
  *offset = at;
  return 0;
}

/* A string for C: no NUL inside. */
static int check_text(const char *text, uint32_t length, const char *what, struct imd_error *err)
{
  if (memchr(text, '\0', length))
    return refuse(err, "%s holds a NUL", what);
  return 0;
}

static bool has_component(const char *path, const char *component)
{
  const size_t size = strlen(component);
  for (const char *at = path; at; at = strchr(at, '/')) {
    at += strspn(at, "/");
    const size_t span = strcspn(at, "/");
    if (span == size && memcmp(at, component, size) == 0)
      return true;
  }
  return false;
}

/* A host path, or one to read inside: absolute, no `..`. */
static int check_path(const char *path, uint32_t length, const char *what, struct imd_error *err)
{
  if (check_text(path, length, what, err) < 0)
    return -1;
  if (path[0] != '/')
    return refuse(err, "%s is not absolute: %.100s", what, path);
  if (length >= PATH_MAX)
    return refuse(err, "%s is longer than %d bytes", what, PATH_MAX - 1);
  if (has_component(path, ".."))
    return refuse(err, "%s has a `..`: %.100s", what, path);
  return 0;
}

/* A place that the plan makes or covers inside: as check_path, in its shortest form, and not the root itself. */
static int check_target(const char *path, uint32_t length, struct imd_error *err)
{
  if (check_path(path, length, "target", err) < 0)
    return -1;
  if (length == 1)
    return refuse(err, "target is the root itself");
  if (path[length - 1] == '/' || strstr(path, "//") || has_component(path, "."))
    return refuse(err, "target is not in its shortest form: %.100s", path);
  return 0;
}

/* [a-z0-9][a-z0-9_.-]{0,63}: the name of a cgroup directory, which can be neither `..` nor a knob's. */
static int check_name(const char *name, uint32_t length, const char *what, struct imd_error *err)
{
  static const char first[] = "abcdefghijklmnopqrstuvwxyz0123456789";
  static const char later[] = "abcdefghijklmnopqrstuvwxyz0123456789_.-";
  if (length == 0 || length > MAX_NAME || !memchr(first, name[0], sizeof first - 1) || strspn(name, later) != length)
    return refuse(err, "%s is not a name: %.70s", what, name);
  return 0;
}

static int check_at_most(uint64_t number, uint64_t most, const char *what, struct imd_error *err)
{
  if (number > most)
    return refuse(err, "%s is %llu, beyond %llu", what, (unsigned long long)number, (unsigned long long)most);
  return 0;
}

static int check_within(uint64_t number, uint64_t least, uint64_t most, const char *what, struct imd_error *err)
{
  if (number < least)
    return refuse(err, "%s is %llu, below %llu", what, (unsigned long long)number, (unsigned long long)least);
  return check_at_most(number, most, what, err);
}

static int check_cgroup(const struct imd_plan_step *step, struct imd_error *err)
{
  const uint64_t memory = step->numbers[0], pids = step->numbers[1], quota = step->numbers[2];
  const uint64_t period = step->numbers[3], io = step->numbers[4];
  if (check_at_most(memory, INT64_MAX, "memory_max", err) < 0 || check_at_most(pids, INT_MAX, "pids_max", err) < 0 ||
      check_at_most(io, INT64_MAX, "io_bps", err) < 0 ||
      check_at_most(step->numbers[5], memory == 0 ? 0 : INT64_MAX, "swap_max", err) < 0)
    return -1;
  /* The kernel's own bounds: 1 ms to 1 s a period, at least 1 ms a quota. */
  if (quota != 0 && (check_within(period, 1000, 1000000, "cpu_period_us", err) < 0 ||
                     check_within(quota, 1000, INT64_MAX / 1000, "cpu_quota_us", err) < 0))
    return -1;

  uint32_t length;
  const char *cursor = step->strings;
  const char *tenant = imd_plan_string(&cursor, &length);
  if (check_name(tenant, length, "tenant", err) < 0)
    return -1;
  const char *sandbox = imd_plan_string(&cursor, &length);
  return check_name(sandbox, length, "sandbox", err);
}

static bool lies_beneath(const char *path, const char *directory, size_t size)
{
  return size == 1 || (strncmp(path, directory, size) == 0 && (path[size] == '/' || path[size] == '\0'));
}

/* A source outside, a target inside; with BENEATH a directory, in its shortest form, by whose name the source begins. */
static int check_pair(const struct imd_plan_step *step, const char *what, struct imd_error *err)
{
  const bool beneath = step->numbers[0] & IMD_BIND_BENEATH;
  uint32_t length;
  const char *cursor = step->strings;
  if (step->string_count != 2 + beneath)
    return refuse(err, "a bind of %u strings", step->string_count);
  const char *source = imd_plan_string(&cursor, &length);
  if (check_path(source, length, what, err) < 0)
    return -1;
  const char *target = imd_plan_string(&cursor, &length);
  if (check_target(target, length, err) < 0)
    return -1;
  if (!beneath)
    return 0;
  const char *directory = imd_plan_string(&cursor, &length);
  if (check_path(directory, length, "directory", err) < 0)
    return -1;
  if ((length > 1 && directory[length - 1] == '/') || !lies_beneath(source, directory, length))
    return refuse(err, "%s does not lie beneath %.100s", what, directory);
  return 0;
}

static int check_bind(const struct imd_plan_step *step, struct imd_error *err)
{
  const uint64_t known = IMD_BIND_WRITE | IMD_BIND_NOEXEC | IMD_BIND_OPTIONAL | IMD_BIND_GRANTED | IMD_BIND_LAYER |
                         IMD_BIND_BENEATH;
  if (step->numbers[0] & ~known)
    return refuse(err, "unknown flags: %#llx", (unsigned long long)(step->numbers[0] & ~known));
  if ((step->numbers[0] & IMD_BIND_LAYER) && (step->numbers[0] & (IMD_BIND_WRITE | IMD_BIND_GRANTED)))
    return refuse(err, "a layer that is written through, or is the operator's");

  return check_pair(step, "source", err);
}

static int check_tmpfs(const struct imd_plan_step *step, struct imd_error *err)
{
  /* To a tmpfs, 0 means no bound. */
  if (check_within(step->numbers[0], 1, INT64_MAX, "size", err) < 0 ||
      check_within(step->numbers[1], 1, INT64_MAX, "inodes", err) < 0 ||
      check_at_most(step->numbers[2], 01777, "mode", err) < 0 || check_at_most(step->numbers[3], 1, "noexec", err) < 0)
    return -1;
  uint32_t length;
  const char *target = imd_plan_string_at(step, 0, &length);
  return check_target(target, length, err);
}

/* A number at the start of a text, which begins behind it then; -1: none, or none of a processor's. */
static int take_processor(const char **text)
{
  int number = 0, digits = 0;
  for (; **text >= '0' && **text <= '9' && digits < 4; digits++)
    number = number * 10 + *(*text)++ - '0';
  return digits > 0 && number < CPU_SETSIZE ? number : -1;
}

bool imd_plan_processors(const char *text, cpu_set_t *set)
{
  CPU_ZERO(set);
  for (int least = 0;; text++) {
    const int first = take_processor(&text);
    int last = first;
    if (*text == '-') {
      text++;
      last = take_processor(&text);
    }
    if (first < least || last < first || (*text != ',' && *text != '\0'))
      return false;
    for (int cpu = first; cpu <= last; cpu++)
      CPU_SET(cpu, set);
    if (*text == '\0')
      return true;
    least = last + 1;
  }
}

static int check_affinity(const uint64_t *numbers, const char *list, uint32_t length, struct imd_error *err)
{
  cpu_set_t set;
  if (check_text(list, length, "processors", err) < 0 || check_at_most(numbers[0], CPU_SETSIZE, "count", err) < 0 ||
      check_at_most(numbers[1], IMD_AFFINITY_EXCLUSIVE | IMD_AFFINITY_CPUSET, "flags", err) < 0)
    return -1;
  if (length == 0 && numbers[0] == 0)
    return refuse(err, "processors neither named nor counted");
  if (length > 0 && !imd_plan_processors(list, &set))
    return refuse(err, "processors are no ascending list of numbers and ranges: %.50s", list);
  return 0;
}

static int check_exec(const struct imd_plan_step *step, struct imd_error *err)
{
  const uint64_t argc = step->numbers[0];
  if (step->string_count < 2 || check_within(argc, 1, step->string_count - 1u, "argc", err) < 0)
    return step->string_count < 2 ? refuse(err, "no cwd or no argv") : -1;

  uint32_t length;
  const char *cursor = step->strings;
  const char *cwd = imd_plan_string(&cursor, &length);
  if (check_path(cwd, length, "cwd", err) < 0)
    return -1;
  for (uint64_t i = 0; i < argc; i++) {
    const char *argument = imd_plan_string(&cursor, &length);
    if (check_text(argument, length, "argv", err) < 0)
      return -1;
    if (i == 0 && (length == 0 || length >= PATH_MAX))
      return refuse(err, "argv[0] is empty or too long");
  }
  for (uint64_t i = argc + 1; i < step->string_count; i++) {
    const char *variable = imd_plan_string(&cursor, &length);
    if (check_text(variable, length, "environment", err) < 0)
      return -1;
    if (variable[0] == '=' || !strchr(variable, '='))
      return refuse(err, "environment entry without a name and `=`: %.50s", variable);
  }
  return 0;
}

/* A sandbox's wall time is its time to live; it has no first process whose cpu time or forks could end it. */
static int check_deadlines(const uint64_t *numbers, uint32_t kind, struct imd_error *err)
{
  const bool lives = kind == IMD_PLAN_SANDBOX;
  if (check_within(numbers[0], lives ? 1 : 0, INT64_MAX, "wall_ns", err) < 0 ||
      check_at_most(numbers[1], lives ? 0 : INT64_MAX, "cpu_ns", err) < 0)
    return -1;
  return check_at_most(numbers[2], lives ? 0 : 1, "kill_on_pids", err);
}

static int check_terminal(const uint64_t *numbers, struct imd_error *err)
{
  return check_within(numbers[0], 1, UINT16_MAX, "rows", err) < 0
             ? -1 : check_within(numbers[1], 1, UINT16_MAX, "columns", err);
}

/* Of a layer: to a file system, 0 means no bound. */
static int check_layer(const uint64_t *numbers, uint64_t flags, struct imd_error *err)
{
  if (numbers[0] & ~flags)
    return refuse(err, "unknown flags: %#llx", (unsigned long long)(numbers[0] & ~flags));
  return check_within(numbers[1], 1, INT64_MAX, "size", err) < 0 ? -1
                                                                 : check_within(numbers[2], 1, INT64_MAX, "inodes", err);
}

static int check_capture(const struct imd_plan_step *step, struct imd_error *err)
{
  return check_layer(step->numbers, IMD_BIND_NOEXEC | IMD_BIND_BENEATH, err) < 0 ? -1 : check_pair(step, "source", err);
}

/* Something of the daemon's own, by `parts` names between slashes (storage.h), and its place inside. */
static int check_stored(const struct imd_plan_step *step, uint64_t flags, uint32_t parts, struct imd_error *err)
{
  uint32_t length;
  const char *cursor = step->strings;
  const char *name = imd_plan_string(&cursor, &length);
  if (check_text(name, length, "name", err) < 0)
    return -1;
  for (const char *at = name; parts > 0; parts--) {
    char part[MAX_NAME + 2];
    const size_t size = strcspn(at, "/");
    if (size > MAX_NAME || at[size] != (parts > 1 ? '/' : '\0'))
      return refuse(err, "not the name of anything kept: %.200s", name);
    memcpy(part, at, size);
    part[size] = '\0';
    if (check_name(part, (uint32_t)size, "part of a name", err) < 0)
      return -1;
    at += size + 1;
  }
  const char *target = imd_plan_string(&cursor, &length);
  /* What was saved of a root that is a layer goes there again. */
  if (step->op == IMD_OP_RESTORE && length == 1 && target[0] == '/')
    return check_layer(step->numbers, flags, err);
  return check_target(target, length, err) < 0 ? -1 : check_layer(step->numbers, flags, err);
}

static int check_image(const uint64_t *numbers, const char *digest, uint32_t length, struct imd_error *err)
{
  if (length != MAX_NAME || strspn(digest, "0123456789abcdef") != length)
    return refuse(err, "an image is named by 64 hex digits");
  if (!(numbers[0] & IMD_IMAGE_LAYER) && (numbers[1] != 0 || numbers[2] != 0))
    return refuse(err, "the size of a layer that is not there");
  return numbers[0] == 0 ? 0 : check_layer(numbers, IMD_IMAGE_LAYER, err);
}

static int check_meaning(const struct imd_plan_step *step, uint32_t kind, struct imd_error *err)
{
  const uint64_t *numbers = step->numbers;
  uint32_t length = 0;
  const char *string = step->string_count > 0 ? imd_plan_string_at(step, 0, &length) : NULL;

  switch (step->op) {
  case IMD_OP_DEADLINES:
    return check_deadlines(numbers, kind, err);
  case IMD_OP_CGROUP:
    return check_cgroup(step, err);
  case IMD_OP_COLLECT:
    if (check_at_most(numbers[0], INT64_MAX, "max_bytes", err) < 0)
      return -1;
    return check_path(string, length, "path", err);
  case IMD_OP_TERMINAL:
    return check_terminal(numbers, err);
  case IMD_OP_CAPTURE:
    return check_capture(step, err);
  case IMD_OP_RESTORE:
    return check_stored(step, IMD_BIND_NOEXEC | IMD_BIND_GRANTED, 3, err);
  case IMD_OP_VOLUME:
    return check_stored(step, IMD_BIND_NOEXEC, 2, err);
  case IMD_OP_ROOTFS:
    return check_path(string, length, "source", err);
  case IMD_OP_IMAGE:
    return check_image(numbers, string, length, err);
  case IMD_OP_BIND:
    return check_bind(step, err);
  case IMD_OP_TMPFS:
    return check_tmpfs(step, err);
  case IMD_OP_PROTECT:
    if (check_at_most(numbers[0], IMD_ABSENT_HELD, "absent", err) < 0)
      return -1;
    return check_target(string, length, err);
  case IMD_OP_HIDE:
    return check_target(string, length, err);
  case IMD_OP_FILE:
    if (check_at_most(numbers[0], 0777, "mode", err) < 0)
      return -1;
    return check_target(string, length, err);
  case IMD_OP_RLIMIT:
    if (check_at_most(numbers[0], RLIM_NLIMITS - 1, "resource", err) < 0)
      return -1;
    /* At any other value a crash starts the host's handler of core dumps, which is root's. */
    if (numbers[0] == RLIMIT_CORE && (numbers[1] != 1 || numbers[2] != 1))
      return refuse(err, "a core size that is not 1");
    return check_at_most(numbers[1], numbers[2], "soft limit", err);
  case IMD_OP_AFFINITY:
    return check_affinity(numbers, string, length, err);
  case IMD_OP_UMASK:
    return check_at_most(numbers[0], 0777, "mask", err);
  case IMD_OP_IDENTITY:
    if (check_within(numbers[0], 1, 65533, "uid", err) < 0)
      return -1;
    return check_within(numbers[1], 1, 65533, "gid", err);
  case IMD_OP_LANDLOCK:
    if (numbers[0] != landlock_rung)
      return refuse(err, "rung %llu, and Landlock's here is %u", (unsigned long long)numbers[0], landlock_rung);
    return check_at_most(numbers[1], IMD_LANDLOCK_NO_NETWORK, "flags", err);
  case IMD_OP_EXPLAIN:
    if (numbers[0] & ~(uint64_t)(IMD_EXPLAIN_HALT | IMD_EXPLAIN_LEARN))
      return refuse(err, "unknown flags: %#llx", (unsigned long long)numbers[0]);
    /* fall through */
  case IMD_OP_SECCOMP:
    if (length == 0 || length % IMD_FILTER_INSTRUCTION != 0)
      return refuse(err, "a filter of %u bytes is not whole instructions", length);
    return check_at_most(length / IMD_FILTER_INSTRUCTION, IMD_MAX_FILTER, "instructions", err);
  case IMD_OP_EXEC:
    return check_exec(step, err);
  default:
    return 0;
  }
}

static int check_header(const struct imd_plan *plan, size_t length, struct imd_error *err)
{
  if (length < sizeof *plan || length > IMD_MAX_PLAN)
    return refuse(err, "%zu bytes are no plan", length);
  if (plan->magic != IMD_PLAN_MAGIC || plan->version != IMD_PROTOCOL_VERSION)
    return refuse(err, "not a plan of version %d", IMD_PROTOCOL_VERSION);
  if (plan->kind > IMD_PLAN_EXEC)
    return refuse(err, "a plan of kind %u", plan->kind);
  if (plan->length != length)
    return refuse(err, "the plan says that it has %u bytes, and has %zu", plan->length, length);
  return check_at_most(plan->steps, IMD_MAX_STEPS, "steps", err);
}

/* An exec's network is its sandbox's, of which its plan does not tell: exec.c sees to that. */
static int check_landlock(const bool *seen, uint32_t kind, uint64_t flags, struct imd_error *err)
{
  if (landlock_rung == 0 || kind == IMD_PLAN_SANDBOX)
    return 0;
  if (!seen[rule_of(IMD_OP_LANDLOCK) - rules])
    return refuse(err, "LANDLOCK is missing");
  if (kind == IMD_PLAN_RUN && !seen[rule_of(IMD_OP_LOOPBACK) - rules] && !(flags & IMD_LANDLOCK_NO_NETWORK))
    return refuse(err, "LANDLOCK without LOOPBACK leaves the network open");
  return 0;
}

int imd_plan_check(const void *plan, size_t length, struct imd_error *err)
{
  const struct imd_plan *head = plan;
  err->step = UINT32_MAX;
  if (check_header(head, length, err) < 0)
    return -1;

  const uint32_t of = 1u << head->kind;
  bool seen[RULES] = {false};
  uint64_t landlock_flags = 0;
  uint32_t rank = 0, collects = 0;
  size_t end = sizeof *head;
  struct imd_plan_cursor cursor = {.plan = plan};

  for (uint32_t index = 0; index < head->steps; index++) {
    struct imd_plan_step step;
    err->step = index;
    if (check_shape(plan, length, &end, err) < 0)
      return -1;
    imd_plan_next(&cursor, &step);

    const struct rule *rule = rule_of(step.op);
    if (!rule)
      return refuse(err, "unknown operation %u", step.op);
    if (!(rule->kinds & of))
      return refuse(err, "%s is nothing for a plan of kind %u", rule->name, head->kind);
    if (rank_of(step.op) < rank)
      return refuse(err, "%s is out of order", rule->name);
    if (seen[rule - rules] && !rule->repeats)
      return refuse(err, "%s comes twice", rule->name);
    if (step.number_count != rule->numbers ||
        (rule->strings != ANY_COUNT && step.string_count != rule->strings))
      return refuse(err, "%s with %u numbers and %u strings", rule->name, step.number_count, step.string_count);
    if (step.op == IMD_OP_COLLECT && ++collects > IMD_MAX_COLLECT)
      return refuse(err, "more than %d files to collect", IMD_MAX_COLLECT);
    if (check_meaning(&step, head->kind, err) < 0)
      return -1;
    seen[rule - rules] = true;
    if (step.op == IMD_OP_LANDLOCK)
      landlock_flags = step.numbers[1];
    rank = rank_of(step.op);
  }

  err->step = UINT32_MAX;
  if (end != length)
    return refuse(err, "%zu bytes after the last step", length - end);
  for (size_t i = 0; i < RULES; i++)
    if (rules[i].required && (rules[i].kinds & of) && !seen[i])
      return refuse(err, "%s is missing", rules[i].name);
  if (seen[rule_of(IMD_OP_ROOTFS) - rules] && seen[rule_of(IMD_OP_IMAGE) - rules])
    return refuse(err, "two roots: ROOTFS and IMAGE");
  return check_landlock(seen, head->kind, landlock_flags, err);
}

int imd_plan_is(const void *plan, uint32_t kind, struct imd_error *err)
{
  const struct imd_plan *head = plan;
  err->step = UINT32_MAX;
  return head->kind == kind ? 0 : refuse(err, "a plan of kind %u, where one of kind %u belongs", head->kind, kind);
}

bool plan_step(const void *plan, uint32_t op, struct imd_plan_step *found)
{
  struct imd_plan_cursor cursor = {.plan = plan};
  while (imd_plan_next(&cursor, found))
    if (found->op == op)
      return true;
  return false;
}
