/* Borrowed bytes, and what went wrong: the small change of every part. */
#ifndef IMMURE_BYTES_H
#define IMMURE_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

/* Bytes that somebody else owns. */
struct imc_bytes {
  const uint8_t *at;
  size_t size;
};

static inline struct imc_bytes imc_text(const char *text)
{
  return (struct imc_bytes){(const uint8_t *)text, strlen(text)};
}

static inline bool imc_is(struct imc_bytes bytes, const char *text)
{
  return bytes.size == strlen(text) && memcmp(bytes.at, text, bytes.size) == 0;
}

static inline bool imc_starts(struct imc_bytes bytes, const char *text)
{
  return bytes.size >= strlen(text) && memcmp(bytes.at, text, strlen(text)) == 0;
}

/* An error as a person reads it: a code of the contract, a message that names the thing (UTF-8, perhaps cut), a remedy
 * ("" for none). */
struct imc_error {
  const char *code;
  const char *remedy;
  char message[768];
};

/* Fills the error and returns -1, so that a caller may return it. */
int imc_fail(struct imc_error *err, const char *code, const char *remedy, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

static inline void imc_cleanup_fd(const int *fd)
{
  if (*fd >= 0)
    close(*fd);
}

#define cleanup_fd __attribute__((cleanup(imc_cleanup_fd), unused))

#endif
