/*
 * msgpack, read: strictly, as docs/protocol.md says under Values, and without allocating. `imc_check` walks the whole
 * first; what it passed is then read by name, in place. The Python twin is wire/strict_msgpack.py: same bounds, same
 * words.
 */
#ifndef IMMURE_UNPACK_H
#define IMMURE_UNPACK_H

#include "bytes.h"

enum { IMC_MAX_DEPTH = 8, IMC_MAX_ITEMS = 65536 };

enum imc_kind { IMC_BOOL, IMC_INT, IMC_STR, IMC_BIN, IMC_ARRAY, IMC_MAP };

struct imc_value {
  enum imc_kind kind;
  bool truth;                      /* BOOL */
  bool negative;                   /* INT: `number` is its two's complement */
  uint64_t number;                 /* INT; ARRAY: values; MAP: pairs */
  struct imc_bytes bytes;          /* STR, BIN: the content. ARRAY, MAP: from the first value on */
};

/* One good value and nothing behind it: no nil, float or ext, keys are `str` and stand once, `str` is UTF-8, nothing
 * declared that is not there. `depth` (at most IMC_MAX_DEPTH) and `items` (at most IMC_MAX_ITEMS) are the bounds. Code
 * `bad_msgpack`. */
int imc_check(struct imc_bytes data, unsigned depth, unsigned items, struct imc_error *err);

/* The next value of what `imc_check` passed; of an array or map, its head alone. False at the end. */
bool imc_next(struct imc_bytes *rest, struct imc_value *value);

/* Moves past a value and all that is in it. */
bool imc_skip(struct imc_bytes *rest);

/* The value of a name in a map. */
bool imc_find(const struct imc_value *map, const char *name, struct imc_value *value);

/* The kind's name, as messages say it: `an integer`, `a map`. */
const char *imc_kind_name(enum imc_kind kind);

#endif
