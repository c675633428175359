#include "pack.h"

#include "text.h"

void imc_put_bytes(struct imc_pack *pack, const void *bytes, size_t size)
{
  if (pack->full || size > pack->room - pack->size) {
    pack->full = true;
    return;
  }
  if (size > 0)
    memcpy(pack->at + pack->size, bytes, size);
  pack->size += size;
}

/* A head byte and `width` bytes of `number`, big-endian. */
static void head(struct imc_pack *pack, uint8_t first, uint64_t number, int width)
{
  uint8_t bytes[9] = {first};
  for (int i = 0; i < width; i++)
    bytes[1 + i] = (uint8_t)(number >> 8 * (width - 1 - i));
  imc_put_bytes(pack, bytes, 1 + (size_t)width);
}

/* The shortest of the heads for lengths up to 255, 65,535 and 2^32 - 1; 0 where there is no head for the first. */
static void length(struct imc_pack *pack, size_t size, uint8_t byte, uint8_t two, uint8_t four)
{
  if (size > UINT32_MAX)
    pack->full = true;
  else if (byte && size <= UINT8_MAX)
    head(pack, byte, size, 1);
  else if (size <= UINT16_MAX)
    head(pack, two, size, 2);
  else
    head(pack, four, size, 4);
}

void imc_put_map(struct imc_pack *pack, size_t pairs)
{
  if (pairs < 16)
    head(pack, (uint8_t)(0x80 | pairs), 0, 0);
  else
    length(pack, pairs, 0, 0xde, 0xdf);
}

void imc_put_array(struct imc_pack *pack, size_t values)
{
  if (values < 16)
    head(pack, (uint8_t)(0x90 | values), 0, 0);
  else
    length(pack, values, 0, 0xdc, 0xdd);
}

void imc_put_bin(struct imc_pack *pack, const void *bytes, size_t size)
{
  length(pack, size, 0xc4, 0xc5, 0xc6);
  imc_put_bytes(pack, bytes, size);
}

void imc_put_str(struct imc_pack *pack, const char *text)
{
  const size_t size = strlen(text);
  if (size < 32)
    head(pack, (uint8_t)(0xa0 | size), 0, 0);
  else
    length(pack, size, 0xd9, 0xda, 0xdb);
  imc_put_bytes(pack, text, size);
}

void imc_put_number(struct imc_pack *pack, uint64_t number)
{
  if (number < 0x80)
    head(pack, (uint8_t)number, 0, 0);
  else if (number <= UINT8_MAX)
    head(pack, 0xcc, number, 1);
  else if (number <= UINT16_MAX)
    head(pack, 0xcd, number, 2);
  else if (number <= UINT32_MAX)
    head(pack, 0xce, number, 4);
  else
    head(pack, 0xcf, number, 8);
}

void imc_put_true(struct imc_pack *pack)
{
  head(pack, 0xc3, 0, 0);
}

void imc_put_text(struct imc_pack *pack, const char *text)
{
  if (imc_is_utf8(imc_text(text)))
    imc_put_str(pack, text);
  else
    imc_put_bin(pack, text, strlen(text));
}
