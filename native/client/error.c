#include "bytes.h"

#include <stdarg.h>
#include <stdio.h>

int imc_fail(struct imc_error *err, const char *code, const char *remedy, const char *format, ...)
{
  err->code = code;
  err->remedy = remedy;
  va_list arguments;
  va_start(arguments, format);
  if (vsnprintf(err->message, sizeof err->message, format, arguments) < 0)
    err->message[0] = '\0';
  va_end(arguments);
  return -1;
}
