/* The ring that a kept exec's output goes to (struct imd_log): its only writer. */
#ifndef IMMURED_EXEC_LOG_H
#define IMMURED_EXEC_LOG_H

#include "error.h"
#include "protocol.h"

#include <stddef.h>
#include <stdint.h>

struct exec_log {
  struct imd_log *map;             /* NULL: none */
  char *ring;
  uint64_t capacity, start, end, total[2];   /* ours: what the memory says of them we never believe */
  int event;
};

#define EXEC_LOG_NONE {.map = NULL, .event = -1}

/*
 * `memory` as the broker made it: sealed against other sizes, or who cut it short would end the warden. Both descriptors are
 * the log's from then on, `memory` is closed.
 */
int exec_log_open(struct exec_log *log, int memory, int event, struct imd_error *err);

/* At most 65536 bytes, as one record; the oldest make room for it. */
void exec_log_write(struct exec_log *log, int stream, const char *data, size_t size);

#endif
