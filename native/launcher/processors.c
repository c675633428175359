#define _GNU_SOURCE
#include "processors.h"
#include "plan.h"
#include "protocol.h"
#include "util.h"

#include <fcntl.h>
#include <sys/mman.h>

#define refuse(err, error, ...) imd_fail((err), IMD_STAGE_PROCESSORS, (error), __VA_ARGS__)

int processors_open(void)
{
  return memfd_create("immured-processors", MFD_CLOEXEC);
}

/*
 * Byte N stands for processor N. The lock is the process's (F_SETLK), not the descriptor's: all wardens share that one,
 * the payload and other children inherit nothing of it, and a warden that dies lets go.
 */
static int hold(const struct warden_config *config, int processor)
{
  return fcntl(config->processors, F_SETLK,
               &(struct flock){.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = processor, .l_len = 1});
}

/* Processor numbers of `all`, beginning with its `first`-th (counted round), until `count` are chosen. */
static int choose(cpu_set_t *chosen, const cpu_set_t *all, uint64_t first, uint64_t count, bool exclusive,
                  const struct warden_config *config)
{
  int numbers[CPU_SETSIZE];
  uint64_t have = 0, taken = 0;
  for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
    if (CPU_ISSET(cpu, all))
      numbers[have++] = cpu;
  for (uint64_t i = 0; i < have && taken < count; i++) {
    const int cpu = numbers[(first + i) % have];
    if (exclusive && hold(config, cpu) < 0) {
      if (errno != EAGAIN && errno != EACCES)
        return -1;
      continue;
    }
    CPU_SET(cpu, chosen);
    taken++;
  }
  errno = EBUSY;
  return taken == count ? 0 : -1;
}

static int choose_for(struct run *run, const struct imd_plan_step *step, const struct warden_config *config,
                      struct imd_error *err)
{
  cpu_set_t ours, named;
  if (sched_getaffinity(0, sizeof ours, &ours) < 0)
    return refuse(err, errno, "our own processors");
  const char *list = imd_plan_string_at(step, 0, NULL);
  named = ours;
  if (list[0] != '\0') {
    imd_plan_processors(list, &named);
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
      if (CPU_ISSET(cpu, &named) && !CPU_ISSET(cpu, &ours))
        return refuse(err, 0, "processor %d is not there, or not ours to use", cpu);
  }
  const bool exclusive = step->numbers[1] & IMD_AFFINITY_EXCLUSIVE;
  const uint64_t have = (uint64_t)CPU_COUNT(&named);
  uint64_t count = step->numbers[0];
  if (count == 0 || (count > have && !exclusive))
    count = have;
  CPU_ZERO(&run->processors);
  run->confined = true;
  run->exclusive = exclusive;
  run->cpuset = step->numbers[1] & IMD_AFFINITY_CPUSET;
  if (count <= have && choose(&run->processors, &named, config->cell % have, count, exclusive, config) == 0)
    return 0;
  const int error = count > have ? 0 : errno;
  processors_release(run, config);
  return refuse(err, error, "too few of %llu processors are free for %llu", (unsigned long long)have,
                (unsigned long long)count);
}

int processors_choose(struct run *run, const struct warden_config *config, struct imd_error *err)
{
  struct imd_plan_cursor cursor = {.plan = run->plan};
  for (struct imd_plan_step step; imd_plan_next(&cursor, &step);) {
    if (step.op != IMD_OP_AFFINITY)
      continue;
    err->step = step.index;
    if (choose_for(run, &step, config, err) < 0)
      return -1;
    err->step = UINT32_MAX;
  }
  return 0;
}

void processors_release(const struct run *run, const struct warden_config *config)
{
  if (run->exclusive)
    fcntl(config->processors, F_SETLK, &(struct flock){.l_type = F_UNLCK, .l_whence = SEEK_SET});
}
