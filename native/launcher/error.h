/* What went wrong, where: filled by the function that failed, as its last parameter, and sent to the broker as it is. */
#ifndef IMMURED_ERROR_H
#define IMMURED_ERROR_H

#include <stdint.h>

struct imd_error {
  uint32_t stage;                  /* enum imd_stage */
  uint32_t step;                   /* the plan's index, UINT32_MAX outside of a plan */
  int error;                       /* errno, 0 where none fits */
  char text[256];
};

#define IMD_ERROR_INIT {.step = UINT32_MAX}

/* Fills all but `step`, adds errno's name to the text, keeps errno; returns -1 so that a caller may return it. */
int imd_fail(struct imd_error *err, uint32_t stage, int error, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

#endif
