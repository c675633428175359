/*
 * The native client's reading of what a daemon sends, against any bytes, in a block of memory that is exactly as long.
 *
 *   python native/client_build.py .build/fuzz/immure            (makes printable.inc, in .build/client-<digest>)
 *   clang -fsanitize=fuzzer,address,undefined -DIMMURED_LIBFUZZER -D_GNU_SOURCE= -Inative/client -I.build/client-<digest>
 *       tests/fuzz/fuzz_client.c native/client/{error,text,pack,unpack,keys,envelope,messages,result}.c -lsodium
 *
 * Without IMMURED_LIBFUZZER it has a main: each argument is a file of bytes (for AFL: `@@`); `-` reads many from standard
 * input, each after its length as a uint32_t, and answers each with six verdicts, ended by a NUL each: as one msgpack
 * value, an envelope, a hello, data, a reply, a run's result.
 */
#include "messages.h"
#include "result.h"

#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

typedef int reading(struct imc_bytes bytes, struct imc_error *err);

static unsigned touched;           /* keeps reads from being optimised away */

static void touch(struct imc_bytes bytes)
{
  for (size_t i = 0; i < bytes.size; i++)
    touched += bytes.at[i];
}

static int as_value(struct imc_bytes bytes, struct imc_error *err)
{
  if (imc_check(bytes, IMC_MAX_DEPTH, IMC_MAX_ITEMS, err) < 0)
    return -1;
  if (!imc_skip(&bytes) || bytes.size != 0)
    abort();                       /* what was checked can be walked, to its end */
  return 0;
}

static int as_envelope(struct imc_bytes bytes, struct imc_error *err)
{
  static const struct imc_public nobody = {.id = "ed25519:00000000000000000000000000000000"};
  struct imc_envelope envelope;
  struct imc_error why;
  if (imc_decode(bytes, &envelope, err) < 0)
    return -1;
  touch(envelope.type);
  touch(envelope.payload);
  if (imc_verify_envelope(&envelope, &nobody, &why) == 0)
    abort();
  return 0;
}

static int as_data(struct imc_bytes bytes, struct imc_error *err)
{
  struct imc_data data;
  struct imc_streams streams;
  if (imc_read_data(bytes, &data, err) < 0)
    return -1;
  imc_streams_begin(&streams);
  imc_streams_take(&streams, &data);
  touch(data.re);
  return 0;
}

static int as_reply(struct imc_bytes bytes, struct imc_error *err)
{
  struct imc_reply reply;
  if (imc_read_reply(bytes, &reply, err) < 0)
    return -1;
  touch(reply.re);
  touch(reply.req);
  return 0;
}

static int as_result(struct imc_bytes bytes, struct imc_error *err)
{
  struct imc_reply reply;
  struct imc_streams streams;
  struct imc_result result;
  imc_streams_begin(&streams);
  if (imc_read_reply(bytes, &reply, err) < 0)
    return -1;
  if (!reply.ok)
    return imc_fail(err, "refused", "", "a refusal");
  if (imc_read_result(&reply, &streams, &result, err) < 0)
    return -1;
  touch(result.cause);
  return 0;
}

static reading *const readings[] = {as_value, as_envelope, imc_read_hello, as_data, as_reply, as_result};
enum { READINGS = sizeof readings / sizeof readings[0] };

static int judge(unsigned number, const uint8_t *data, size_t size, struct imc_error *err)
{
  uint8_t *const copy = malloc(size);
  if (size > 0 && !copy)
    abort();
  if (size > 0)
    memcpy(copy, data, size);
  const int verdict = readings[number]((struct imc_bytes){copy, size}, err);
  if (verdict < 0 && (!err->code[0] || !err->message[0]))
    abort();
  free(copy);
  return verdict;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
  for (unsigned i = 0; i < READINGS; i++)
    judge(i, data, size, &(struct imc_error){.code = ""});
  return 0;
}

#ifndef IMMURED_LIBFUZZER
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
      for (uint32_t size; fread(&size, sizeof size, 1, stdin) == 1; fflush(stdout)) {
        uint8_t *data = read_exactly(stdin, size);
        for (unsigned number = 0; number < READINGS; number++) {
          struct imc_error err = {.code = ""};
          if (judge(number, data, size, &err) == 0)
            printf("ok");
          else
            printf("%s: %s", err.code, err.message);
          putchar('\0');
        }
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
    LLVMFuzzerTestOneInput(data, (size_t)size);
    free(data);
    fclose(file);
  }
  return touched == 1 ? 3 : 0;
}
#endif
