/* Envelopes, `[1, type, payload, [[keyid, signature], ...]]`, and the frames around them. docs/protocol.md has both. */
#ifndef IMMURE_ENVELOPE_H
#define IMMURE_ENVELOPE_H

#include "bytes.h"
#include "keys.h"
#include "pack.h"

#define IMC_HELLO "application/vnd.immured.hello.v1+msgpack"
#define IMC_COMMAND "application/vnd.immured.command.v1+msgpack"
#define IMC_REPLY "application/vnd.immured.reply.v1+msgpack"
#define IMC_DATA "application/vnd.immured.data.v1+msgpack"

enum {
  IMC_HEADER = 4,
  IMC_MAX_FRAME = 1 << 20,
  IMC_MAX_SIGNATURES = 8,
  IMC_MAX_NAME = 128,              /* characters of a type, a key id */
  IMC_NONCE = 16,
  IMC_DIGEST = 32,
};

struct imc_envelope {
  struct imc_bytes type, payload;
  unsigned count;
  struct { struct imc_bytes key, signature; } signatures[IMC_MAX_SIGNATURES];
};

/* A frame's body; nothing in it is trusted yet. Codes `bad_msgpack`, `bad_envelope`. */
int imc_decode(struct imc_bytes body, struct imc_envelope *envelope, struct imc_error *err);

/* Whether the daemon signed it; the message says why not, the code is of no use. */
int imc_verify_envelope(const struct imc_envelope *envelope, const struct imc_public *daemon, struct imc_error *err);

/* Appends the frame of an envelope of `payload`, signed with `seed` (NULL: not at all), which is wiped. */
void imc_seal(struct imc_pack *frame, const char *type, struct imc_bytes payload, uint8_t *seed);

#endif
