/* msgpack, written: each value in its shortest form. What does not fit is noted in `full`, once, for the end. */
#ifndef IMMURE_PACK_H
#define IMMURE_PACK_H

#include "bytes.h"

struct imc_pack {
  uint8_t *at;
  size_t size, room;
  bool full;
};

void imc_put_bytes(struct imc_pack *pack, const void *bytes, size_t size);   /* as they are, no header */
void imc_put_map(struct imc_pack *pack, size_t pairs);
void imc_put_array(struct imc_pack *pack, size_t values);
void imc_put_bin(struct imc_pack *pack, const void *bytes, size_t size);
void imc_put_str(struct imc_pack *pack, const char *text);
void imc_put_number(struct imc_pack *pack, uint64_t number);
void imc_put_true(struct imc_pack *pack);

/* Text as it travels: `str`, or `bin` where it is not UTF-8. */
void imc_put_text(struct imc_pack *pack, const char *text);

#endif
