#define _GNU_SOURCE
#include "error.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int imd_fail(struct imd_error *err, uint32_t stage, int error, const char *format, ...)
{
  const int saved = errno;
  err->stage = stage;
  err->error = error;

  va_list arguments;
  va_start(arguments, format);
  int used = vsnprintf(err->text, sizeof err->text, format, arguments);
  va_end(arguments);
  if (used < 0) {
    err->text[0] = '\0';
    used = 0;
  }
  if (error != 0 && (size_t)used < sizeof err->text) {
    const char *description = strerrordesc_np(error);
    snprintf(err->text + used, sizeof err->text - (size_t)used, ": %s", description ? description : "unknown error");
  }
  errno = saved;
  return -1;
}
