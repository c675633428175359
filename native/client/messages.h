/* What the daemon sends: hello, reply, data. Read with an eye shut to fields that a later version may add. The Python
 * twin is wire/messages.py: same bounds, same words. Errors have the code `bad_msgpack` or `bad_reply`. */
#ifndef IMMURE_MESSAGES_H
#define IMMURE_MESSAGES_H

#include "bytes.h"
#include "envelope.h"
#include "unpack.h"

struct imc_data {
  struct imc_bytes re, stream, data;
};

struct imc_reply {
  bool ok;
  bool has_receipt, has_intent;
  struct imc_bytes re, req;        /* no bytes: absent */
  struct imc_value said;           /* a map: the result when ok, else the error */
};

enum { IMC_MAX_DATA = 65536 };

int imc_read_hello(struct imc_bytes payload, struct imc_error *err);
int imc_read_data(struct imc_bytes payload, struct imc_data *data, struct imc_error *err);
int imc_read_reply(struct imc_bytes payload, struct imc_reply *reply, struct imc_error *err);

/* A named value of exactly this kind. 1: it is there; 0: absent; -1: of another kind. `where` is what messages call the
 * map. */
int imc_take(const struct imc_value *map, const char *where, const char *name, enum imc_kind kind,
             struct imc_value *value, struct imc_error *err);

/* The same for a value that must be there: 0 or -1. */
int imc_need(const struct imc_value *map, const char *where, const char *name, enum imc_kind kind,
             struct imc_value *value, struct imc_error *err);

/* An integer within 0..high, bin of exactly `size` bytes: as imc_take. */
int imc_take_number(const struct imc_value *map, const char *where, const char *name, uint64_t high,
                    struct imc_value *value, struct imc_error *err);
int imc_take_bin(const struct imc_value *map, const char *where, const char *name, size_t size,
                 struct imc_value *value, struct imc_error *err);

#endif
