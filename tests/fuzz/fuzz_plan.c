/*
 * The check of plans against any bytes: what passes is walked whole, in a block of memory that is exactly as long.
 *
 *   clang -fsanitize=fuzzer,address,undefined -DIMMURED_LIBFUZZER -D_GNU_SOURCE= -Inative/launcher
 *       tests/fuzz/fuzz_plan.c native/launcher/plan.c native/launcher/error.c
 *
 * Without IMMURED_LIBFUZZER it has a main: each argument is a file that holds a plan (for AFL: `@@`); `-` reads many
 * from standard input, each after its length as a uint32_t. A verdict for each, ended by a NUL: names may hold newlines.
 */
#include "plan.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static unsigned touched;           /* keeps the walk's reads from being optimised away */

static void walk(const void *plan)
{
  struct imd_plan_cursor cursor = {.plan = plan};
  struct imd_plan_step step;
  while (imd_plan_next(&cursor, &step)) {
    for (uint16_t i = 0; i < step.number_count; i++)
      touched += (unsigned)step.numbers[i];
    const char *strings = step.strings;
    for (uint16_t i = 0; i < step.string_count; i++) {
      uint32_t length;
      const char *string = imd_plan_string(&strings, &length);
      if (string[length] != '\0')
        abort();
      for (uint32_t at = 0; at < length; at++)
        touched += (unsigned char)string[at];
    }
  }
}

static int check(const uint8_t *data, size_t size, struct imd_error *error)
{
  void *plan = malloc(size);
  if (size > 0 && !plan)
    abort();
  if (size > 0)
    memcpy(plan, data, size);
  const int result = imd_plan_check(plan, size, error);
  if (result == 0)
    walk(plan);
  else if (error->stage != IMD_STAGE_PLAN || error->text[0] == '\0')
    abort();
  free(plan);
  return result;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
  struct imd_error error = IMD_ERROR_INIT;
  check(data, size, &error);
  return 0;
}

#ifndef IMMURED_LIBFUZZER
static void judge(const uint8_t *data, size_t size)
{
  struct imd_error error = IMD_ERROR_INIT;
  if (check(data, size, &error) == 0)
    printf("ok");
  else
    printf("%d %s", (int)error.step, error.text);
  putchar('\0');
}

static uint8_t *read_exactly(FILE *file, size_t size)
{
  uint8_t *data = malloc(size + 1);
  if (!data || fread(data, 1, size, file) != size)
    abort();
  return data;
}

int main(int argc, char **argv)
{
  for (int i = 1; i < argc; i++) {
    if (strcmp(argv[i], "-") == 0) {
      for (uint32_t size; fread(&size, sizeof size, 1, stdin) == 1;) {
        uint8_t *data = read_exactly(stdin, size);
        judge(data, size);
        free(data);
      }
      continue;
    }
    FILE *file = fopen(argv[i], "rb");
    if (!file || fseek(file, 0, SEEK_END) < 0) {
      perror(argv[i]);
      return 2;
    }
    const long size = ftell(file);
    rewind(file);
    uint8_t *data = read_exactly(file, (size_t)size);
    judge(data, (size_t)size);
    free(data);
    fclose(file);
  }
  return touched == 1 ? 3 : 0;
}
#endif
