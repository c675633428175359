#define _GNU_SOURCE
#include "cgroup.h"
#include "remains.h"
#include "util.h"

#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

static const struct { uint32_t feature; const char *name, *knob; } controllers[] = {
    {IMD_CTL_CPU, "cpu", "cpu.max"},
    {IMD_CTL_MEMORY, "memory", "memory.max"},
    {IMD_CTL_PIDS, "pids", "pids.max"},
    {IMD_CTL_IO, "io", "io.max"},
};
enum { CONTROLLERS = sizeof controllers / sizeof controllers[0] };

#define cgroup_fail(err, ...) imd_fail((err), IMD_STAGE_CGROUP, errno, __VA_ARGS__)

static int make_directory(int parent, const char *name)
{
  if (mkdirat(parent, name, 0755) < 0 && errno != EEXIST)
    return -1;
  return openat(parent, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

static int delegate(int dir, uint32_t features)
{
  for (size_t i = 0; i < CONTROLLERS; i++) {
    char text[16];
    snprintf(text, sizeof text, "+%s", controllers[i].name);
    if ((features & controllers[i].feature) && imd_write_at(dir, "cgroup.subtree_control", text) < 0)
      return -1;
  }
  return 0;
}

/* The first sandbox of a tenant hands the controllers down. */
static bool lacks_controllers(int dir, uint32_t features)
{
  for (size_t i = 0; i < CONTROLLERS; i++)
    if ((features & controllers[i].feature) && faccessat(dir, controllers[i].knob, F_OK, 0) < 0)
      return true;
  return false;
}

static int set_number(const struct cgroup *cgroup, const char *knob, uint64_t number, struct imd_error *err)
{
  char text[32];
  snprintf(text, sizeof text, "%" PRIu64, number);
  return imd_write_at(cgroup->dir, knob, text) < 0 ? cgroup_fail(err, "%s", knob) : 0;
}

static int limit_memory(const struct cgroup *cgroup, uint64_t bytes, uint64_t swap, struct imd_error *err)
{
  char text[32];
  snprintf(text, sizeof text, "%" PRIu64, swap);
  if (set_number(cgroup, "memory.max", bytes, err) < 0)
    return -1;
  /* A kernel without swap has no such knob, and nothing that more than none could be said to. */
  if (imd_write_at(cgroup->dir, "memory.swap.max", text) < 0 && (errno != ENOENT || swap != 0))
    return cgroup_fail(err, "memory.swap.max");
  return cgroup->of == CGROUP_OF_RUN ? set_number(cgroup, "memory.oom.group", 1, err) : 0;
}

static int limit_cpu(const struct cgroup *cgroup, uint64_t quota, uint64_t period, struct imd_error *err)
{
  char text[64];
  snprintf(text, sizeof text, "%" PRIu64 " %" PRIu64, quota, period);
  return imd_write_at(cgroup->dir, "cpu.max", text) < 0 ? cgroup_fail(err, "cpu.max") : 0;
}

static int limit_io(const struct cgroup *cgroup, int host_proc, uint64_t rate, struct imd_error *err)
{
  const int fd = openat(host_proc, "partitions", O_RDONLY | O_CLOEXEC);
  FILE *disks = fd < 0 ? NULL : fdopen(fd, "r");
  if (!disks) {
    if (fd >= 0)
      close(fd);
    return cgroup_fail(err, "the host's disks");
  }
  char line[256];
  int result = 0;
  while (result == 0 && fgets(line, sizeof line, disks)) {
    unsigned major, minor;
    char text[128];
    if (sscanf(line, "%u %u", &major, &minor) != 2)
      continue;
    snprintf(text, sizeof text, "%u:%u rbps=%" PRIu64 " wbps=%" PRIu64, major, minor, rate, rate);
    /* ENODEV: a partition; its disk's limit holds for it. */
    if (imd_write_at(cgroup->dir, "io.max", text) < 0 && errno != ENODEV)
      result = cgroup_fail(err, "io.max of the disk %u:%u", major, minor);
  }
  fclose(disks);
  return result;
}

static int apply_limits(const struct cgroup *cgroup, const struct warden_config *config,
                        const struct imd_plan_step *step, struct imd_error *err)
{
  const uint64_t *numbers = step->numbers;
  if (numbers[0] != 0 && limit_memory(cgroup, numbers[0], numbers[5], err) < 0)
    return -1;
  if (numbers[1] != 0 && set_number(cgroup, "pids.max", numbers[1], err) < 0)
    return -1;
  if (numbers[2] != 0 && limit_cpu(cgroup, numbers[2], numbers[3], err) < 0)
    return -1;
  return numbers[4] != 0 ? limit_io(cgroup, config->host_proc, numbers[4], err) : 0;
}

static int open_figures(struct cgroup *cgroup, struct imd_error *err)
{
  cgroup->cpu_stat = openat(cgroup->dir, "cpu.stat", O_RDONLY | O_CLOEXEC);
  cgroup->pids_events = openat(cgroup->dir, "pids.events", O_RDONLY | O_CLOEXEC);
  return cgroup->cpu_stat < 0 ? cgroup_fail(err, "cpu.stat") : 0;
}

/* Where a sandbox's execs are born: its controllers reach each of them. */
static int make_execs(struct cgroup *cgroup, const struct warden_config *config, struct imd_error *err)
{
  cgroup->execs = make_directory(cgroup->dir, "execs");
  if (cgroup->execs < 0 || delegate(cgroup->dir, config->controllers) < 0 ||
      delegate(cgroup->execs, config->controllers) < 0)
    return cgroup_fail(err, "the controllers of %s/execs", cgroup->name);
  return 0;
}

int cgroup_make(struct cgroup *cgroup, const struct warden_config *config, enum cgroup_of of,
                const struct imd_plan_step *step, struct imd_error *err)
{
  cgroup->of = of;
  if (config->cgroup < 0 && of == CGROUP_OF_SANDBOX)
    return imd_fail(err, IMD_STAGE_CGROUP, ENOTSUP, "a sandbox, and no cgroup v2 to end its execs by");
  if (config->cgroup < 0) {
    if (step->numbers[0] || step->numbers[1] || step->numbers[2] || step->numbers[4])
      return imd_fail(err, IMD_STAGE_CGROUP, ENOTSUP, "a limit, and no cgroup v2 to hold it");
    return 0;
  }
  const char *cursor = step->strings;
  const char *tenant = imd_plan_string(&cursor, NULL), *name = imd_plan_string(&cursor, NULL);
  cleanup_fd int tenants = make_directory(config->cgroup, "tenants");
  if (tenants < 0)
    return cgroup_fail(err, "tenants");
  cgroup->controllers = config->controllers;
  snprintf(cgroup->tenant_name, sizeof cgroup->tenant_name, "%s", tenant);
  cgroup->parent = make_directory(tenants, tenant);
  if (cgroup->parent < 0)
    return cgroup_fail(err, "tenants/%s", tenant);
  if (mkdirat(cgroup->parent, name, 0755) < 0)
    return cgroup_fail(err, "tenants/%s/%s", tenant, name);
  snprintf(cgroup->name, sizeof cgroup->name, "%s", name);
  cgroup->dir = openat(cgroup->parent, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (cgroup->dir < 0)
    return cgroup_fail(err, "tenants/%s/%s", tenant, name);
  if (lacks_controllers(cgroup->dir, config->controllers) &&
      (delegate(tenants, config->controllers) < 0 || delegate(cgroup->parent, config->controllers) < 0))
    return cgroup_fail(err, "the controllers of tenants/%s", tenant);
  if (apply_limits(cgroup, config, step, err) < 0 ||
      (of == CGROUP_OF_SANDBOX && make_execs(cgroup, config, err) < 0))
    return -1;
  return open_figures(cgroup, err);
}

int cgroup_make_exec(struct cgroup *cgroup, const struct cgroup *sandbox, uint64_t number, struct imd_error *err)
{
  cgroup->of = CGROUP_OF_EXEC;
  cgroup->controllers = sandbox->controllers;
  snprintf(cgroup->name, sizeof cgroup->name, "%" PRIu64, number);
  cgroup->parent = fcntl(sandbox->execs, F_DUPFD_CLOEXEC, 0);
  if (cgroup->parent < 0 || mkdirat(cgroup->parent, cgroup->name, 0755) < 0)
    return cgroup_fail(err, "%s/execs/%s", sandbox->name, cgroup->name);
  cgroup->dir = openat(cgroup->parent, cgroup->name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (cgroup->dir < 0)
    return cgroup_fail(err, "%s/execs/%s", sandbox->name, cgroup->name);
  /* Whether it is its own memory that is used up, or the sandbox's: an exec ends whole. */
  if ((cgroup->controllers & IMD_CTL_MEMORY) && set_number(cgroup, "memory.oom.group", 1, err) < 0)
    return -1;
  return open_figures(cgroup, err);
}

int cgroup_limit_exec(struct cgroup *cgroup, const struct warden_config *config, const struct cgroup *sandbox,
                      const struct imd_plan_step *step, struct imd_error *err)
{
  if (strcmp(imd_plan_string_at(step, 0, NULL), sandbox->name) != 0)
    return imd_fail(err, IMD_STAGE_PLAN, 0, "an exec of another sandbox: %s", imd_plan_string_at(step, 0, NULL));
  return apply_limits(cgroup, config, step, err);
}

int cgroup_clerks(const struct cgroup *sandbox)
{
  return make_directory(sandbox->dir, "clerks");
}

/* As the kernel reads lists: one number after the other. */
static void list_processors(const cpu_set_t *processors, char *text, size_t size)
{
  size_t used = 0;
  text[0] = '\0';
  for (int cpu = 0; cpu < CPU_SETSIZE && used < size; cpu++)
    if (CPU_ISSET(cpu, processors))
      used += (size_t)snprintf(text + used, size - used, used > 0 ? ",%d" : "%d", cpu);
}

/* From the top of our subtree to the cgroup's parent. */
static int hand_down_cpuset(const struct cgroup *cgroup, int subtree)
{
  static const char knob[] = "cgroup.subtree_control", word[] = "+cpuset";
  static const char *const above_run[] = {"../../cgroup.subtree_control", "../cgroup.subtree_control"};
  static const char *const above_exec[] = {"../../../../cgroup.subtree_control", "../../../cgroup.subtree_control",
                                           "../../cgroup.subtree_control", "../cgroup.subtree_control"};
  const bool exec = cgroup->of == CGROUP_OF_EXEC;
  if (faccessat(cgroup->dir, "cpuset.cpus", F_OK, 0) == 0)
    return 0;
  if (imd_write_at(subtree, knob, word) < 0)
    return -1;
  for (size_t i = 0; i < (exec ? 4u : 2u); i++)
    if (imd_write_at(cgroup->dir, (exec ? above_exec : above_run)[i], word) < 0)
      return -1;
  return 0;
}

int cgroup_set_processors(struct cgroup *cgroup, const struct warden_config *config, const cpu_set_t *processors,
                          struct imd_error *err)
{
  char list[CPU_SETSIZE * 5];
  if (!(config->controllers & IMD_CTL_CPUSET))
    return imd_fail(err, IMD_STAGE_CGROUP, ENOTSUP, "processors by a controller that is not ours");
  list_processors(processors, list, sizeof list);
  if (hand_down_cpuset(cgroup, config->cgroup) < 0)
    return cgroup_fail(err, "the controller cpuset");
  return imd_write_at(cgroup->dir, "cpuset.cpus", list) < 0 ? cgroup_fail(err, "cpuset.cpus") : 0;
}

bool cgroup_kill(const struct cgroup *cgroup)
{
  return cgroup->dir >= 0 && imd_write_at(cgroup->dir, "cgroup.kill", "1") == 0;
}

static ssize_t read_again(int fd, char *text, size_t size)
{
  const ssize_t got = pread(fd, text, size - 1, 0);
  text[got > 0 ? got : 0] = '\0';
  return got;
}

/* The number after `key` at the start of a line. */
static uint64_t number_after(const char *text, const char *key)
{
  const size_t size = strlen(key);
  for (const char *line = text; line; line = strchr(line, '\n')) {
    line += *line == '\n';
    if (strncmp(line, key, size) == 0 && line[size] == ' ')
      return strtoull(line + size + 1, NULL, 10);
  }
  return 0;
}

bool cgroup_populated(const struct cgroup *cgroup)
{
  char text[128];
  return cgroup->dir >= 0 && imd_read_at(cgroup->dir, "cgroup.events", text, sizeof text) > 0 &&
         number_after(text, "populated") != 0;
}

bool cgroup_wait(const struct cgroup *cgroup, int patience_ms)
{
  if (cgroup->dir < 0)
    return true;
  const uint64_t deadline = imd_now_ns() + (uint64_t)(patience_ms < 0 ? 0 : patience_ms) * 1000000u;
  struct pollfd events = {.fd = openat(cgroup->dir, "cgroup.events", O_RDONLY | O_CLOEXEC), .events = POLLPRI};
  cleanup_fd int fd = events.fd;
  char text[128];
  /* What is read, and what changes after that wakes the poll. */
  while (fd >= 0 && read_again(fd, text, sizeof text) > 0 && number_after(text, "populated") != 0) {
    const uint64_t now = imd_now_ns();
    if (patience_ms >= 0 && now >= deadline)
      return false;
    if (poll(&events, 1, patience_ms < 0 ? -1 : (int)((deadline - now) / 1000000u) + 1) < 0 && errno != EINTR)
      return false;
  }
  return fd >= 0;
}

void cgroup_kill_exec(const struct cgroup *sandbox, uint64_t number)
{
  char name[24];
  snprintf(name, sizeof name, "%" PRIu64, number);
  cleanup_fd int dir = openat(sandbox->execs, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (dir >= 0)
    imd_write_at(dir, "cgroup.kill", "1");
}

int cgroup_freeze(const struct cgroup *sandbox, bool on)
{
  return imd_write_at(sandbox->execs, "cgroup.freeze", on ? "1" : "0");
}

bool cgroup_is_frozen(const struct cgroup *sandbox)
{
  char text[128];
  return imd_read_at(sandbox->execs, "cgroup.events", text, sizeof text) > 0 && number_after(text, "frozen") != 0;
}

int cgroup_frozen_events(const struct cgroup *sandbox)
{
  return openat(sandbox->execs, "cgroup.events", O_RDONLY | O_CLOEXEC);
}

void cgroup_measure_now(const struct cgroup *cgroup, uint64_t *memory, uint64_t *pids)
{
  char text[32];
  *memory = *pids = 0;
  if (cgroup->dir >= 0 && imd_read_at(cgroup->dir, "memory.current", text, sizeof text) > 0)
    *memory = strtoull(text, NULL, 10);
  if (cgroup->dir >= 0 && imd_read_at(cgroup->dir, "pids.current", text, sizeof text) > 0)
    *pids = strtoull(text, NULL, 10);
}

uint64_t cgroup_cpu_ns(const struct cgroup *cgroup)
{
  char text[1024];
  if (cgroup->cpu_stat < 0 || read_again(cgroup->cpu_stat, text, sizeof text) <= 0)
    return 0;
  return number_after(text, "usage_usec") * 1000u;
}

uint64_t cgroup_pids_events(const struct cgroup *cgroup)
{
  char text[128];
  if (cgroup->pids_events < 0 || read_again(cgroup->pids_events, text, sizeof text) <= 0)
    return 0;
  return number_after(text, "max");
}

static void measure_cpu(const struct cgroup *cgroup, struct imd_outcome *outcome)
{
  char text[1024];
  if (cgroup->cpu_stat < 0 || read_again(cgroup->cpu_stat, text, sizeof text) <= 0)
    return;
  outcome->measured |= IMD_MEASURED_CPU;
  outcome->cpu_user_ns = number_after(text, "user_usec") * 1000u;
  outcome->cpu_system_ns = number_after(text, "system_usec") * 1000u;
}

static void measure_memory(const struct cgroup *cgroup, struct imd_outcome *outcome)
{
  char text[512];
  if (imd_read_at(cgroup->dir, "memory.events", text, sizeof text) < 0)
    return;
  outcome->oom_events = number_after(text, "oom");
  outcome->oom_kills = number_after(text, "oom_kill");
  outcome->memory_max_events = number_after(text, "max");
  if (imd_read_at(cgroup->dir, "memory.peak", text, sizeof text) < 0)
    return;
  outcome->memory_peak = strtoull(text, NULL, 10);
  outcome->measured |= IMD_MEASURED_MEMORY;
}

static void measure_pids(const struct cgroup *cgroup, struct imd_outcome *outcome)
{
  char text[32];
  outcome->pids_max_events = cgroup_pids_events(cgroup);
  /* pids.peak is of Linux 6.1. */
  if (imd_read_at(cgroup->dir, "pids.peak", text, sizeof text) < 0)
    return;
  outcome->pids_peak = strtoull(text, NULL, 10);
  outcome->measured |= IMD_MEASURED_PIDS;
}

static uint64_t sum_of(const char *text, const char *key)
{
  uint64_t sum = 0;
  for (const char *at = text; (at = strstr(at, key)); at += strlen(key))
    sum += strtoull(at + strlen(key), NULL, 10);
  return sum;
}

static void measure_io(const struct cgroup *cgroup, struct imd_outcome *outcome)
{
  cleanup_free char *text = malloc(65536);
  if (!text || imd_read_at(cgroup->dir, "io.stat", text, 65536) < 0)
    return;
  outcome->io_read = sum_of(text, " rbytes=");
  outcome->io_written = sum_of(text, " wbytes=");
  outcome->measured |= IMD_MEASURED_IO;
}

void cgroup_measure(const struct cgroup *cgroup, struct imd_outcome *outcome)
{
  if (cgroup->dir < 0)
    return;
  measure_cpu(cgroup, outcome);
  if (cgroup->controllers & IMD_CTL_MEMORY)
    measure_memory(cgroup, outcome);
  if (cgroup->controllers & IMD_CTL_PIDS)
    measure_pids(cgroup, outcome);
  if (cgroup->controllers & IMD_CTL_IO)
    measure_io(cgroup, outcome);
}

static void remove_by_name(int parent, const char *name)
{
  for (int tries = 0; unlinkat(parent, name, AT_REMOVEDIR) < 0; tries++) {
    if (errno != EBUSY || tries == 200) {
      if (errno != ENOENT)
        imd_log("cgroup %s: %s", name, strerror(errno));
      return;
    }
    nanosleep(&(struct timespec){.tv_nsec = 1000000 + 100000 * tries}, NULL);
  }
}

/* What a sandbox's execs left where their wardens could not see to it, and the rest beneath it. */
static void remove_execs(struct cgroup *cgroup)
{
  const int fd = openat(cgroup->execs, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  DIR *listing = fd < 0 ? NULL : fdopendir(fd);
  if (!listing && fd >= 0)
    close(fd);
  for (const struct dirent *entry; listing && (entry = readdir(listing));)
    if (entry->d_type == DT_DIR && entry->d_name[0] != '.')
      remove_by_name(cgroup->execs, entry->d_name);
  if (listing)
    closedir(listing);
  imd_close(&cgroup->execs);
  remove_by_name(cgroup->dir, "execs");
  remove_by_name(cgroup->dir, "clerks");
}

void cgroup_remove(struct cgroup *cgroup)
{
  const bool made = cgroup->parent >= 0 && cgroup->name[0] != '\0';
  if (cgroup->execs >= 0)
    remove_execs(cgroup);
  const bool counted = made && cgroup->dir >= 0 && (cgroup->controllers & IMD_CTL_MEMORY);
  const bool kept = counted && cgroup->of != CGROUP_OF_EXEC &&
                    remains_keep(cgroup->dir, cgroup->tenant_name, cgroup->name);
  imd_close(&cgroup->cpu_stat);
  imd_close(&cgroup->pids_events);
  imd_close(&cgroup->dir);
  if (!made)
    return;
  if (!kept)
    remove_by_name(cgroup->parent, cgroup->name);
  if (counted && cgroup->of == CGROUP_OF_EXEC)
    remains_trim(cgroup->parent);
  cgroup->name[0] = '\0';
  imd_close(&cgroup->parent);
}
