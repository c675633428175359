/* The blocks of an archive, as POSIX 1003.1 has them, with GNU's long names and large numbers. */
#ifndef IMMURED_CLERK_FILES_TAR_H
#define IMMURED_CLERK_FILES_TAR_H

#include <stdint.h>

enum { TAR_BLOCK = 512, TAR_MAX_EXTENSION = 64 << 10 };

struct tar_header {
  char name[100], mode[8], uid[8], gid[8], size[12], mtime[12], checksum[8], type, link[100], magic[8], user[32],
      group[32], major[8], minor[8], prefix[155], rest[12];
};

/* The sum of its bytes, its own field as if of spaces. */
static inline uint32_t tar_checksum(const struct tar_header *header)
{
  const unsigned char *bytes = (const void *)header;
  const unsigned char *from = (const void *)header->checksum, *to = from + sizeof header->checksum;
  uint32_t sum = 0;
  for (uint32_t i = 0; i < TAR_BLOCK; i++)
    sum += bytes + i >= from && bytes + i < to ? ' ' : bytes[i];
  return sum;
}

#endif
