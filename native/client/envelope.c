#include "envelope.h"

#include "text.h"
#include "unpack.h"

#include <stdio.h>

#define SHAPE "[1, type, payload, [[keyid, signature], ...]]"
#define REMEDY "send " SHAPE "; see docs/protocol.md, Envelope"

enum { MAX_ITEMS = 128 };          /* eight signatures make 29 */

/* DSSE's pre-authentication encoding. There is one message at a time, and most are small: the room is only touched as
 * far as it is used. */
static struct imc_bytes authenticated(struct imc_bytes type, struct imc_bytes payload)
{
  static uint8_t room[IMC_MAX_FRAME + 2 * IMC_MAX_NAME * 4];
  const int head = snprintf((char *)room, sizeof room, "DSSEv1 %zu %.*s %zu ", type.size, (int)type.size,
                            (const char *)type.at, payload.size);
  if (head < 0 || payload.size > sizeof room - (size_t)head)
    return (struct imc_bytes){room, 0};   /* no frame holds one: it verifies for nobody */
  if (payload.size > 0)
    memcpy(room + head, payload.at, payload.size);
  return (struct imc_bytes){room, (size_t)head + payload.size};
}

static int bad(struct imc_error *err, const char *what, const char *instead)
{
  return imc_fail(err, "bad_envelope", REMEDY, "%s%s", what, instead);
}

static bool is_name(const struct imc_value *value)
{
  const size_t length = value->kind == IMC_STR ? imc_characters(value->bytes) : 0;
  return length > 0 && length <= IMC_MAX_NAME;
}

static int read_signature(struct imc_bytes *rest, struct imc_envelope *envelope, struct imc_error *err)
{
  struct imc_value entry, key, signature;
  if (!imc_next(rest, &entry) || entry.kind != IMC_ARRAY || entry.number != 2 || !imc_next(rest, &key) ||
      !imc_next(rest, &signature))
    return bad(err, "a signature is not [keyid, signature]", "");
  if (!is_name(&key))
    return bad(err, "a key id is not a str of 1 to 128 characters", "");
  if (signature.kind != IMC_BIN)
    return imc_fail(err, "bad_envelope", REMEDY, "a signature is %s, not bin", imc_kind_name(signature.kind));
  for (unsigned i = 0; i < envelope->count; i++) {
    char room[384];
    if (envelope->signatures[i].key.size == key.bytes.size &&
        memcmp(envelope->signatures[i].key.at, key.bytes.at, key.bytes.size) == 0)
      return imc_fail(err, "bad_envelope", REMEDY, "the key %s signs twice", imc_shown(key.bytes, room, sizeof room));
  }
  envelope->signatures[envelope->count].key = key.bytes;
  envelope->signatures[envelope->count++].signature = signature.bytes;
  return 0;
}

int imc_decode(struct imc_bytes body, struct imc_envelope *envelope, struct imc_error *err)
{
  struct imc_value shell, version, type, payload, signatures;
  *envelope = (struct imc_envelope){.count = 0};
  if (imc_check(body, 3, MAX_ITEMS, err) < 0)
    return -1;
  if (!imc_next(&body, &shell) || shell.kind != IMC_ARRAY || shell.number != 4)
    return imc_fail(err, "bad_envelope", REMEDY, "an envelope is " SHAPE ", not %s", imc_kind_name(shell.kind));
  /* A version that is no number may hold values of its own: nothing behind it is read before it is known. */
  if (!imc_next(&body, &version) || version.kind != IMC_INT || version.number != 1)
    return bad(err, "the envelope's version is not 1", "");
  if (!imc_next(&body, &type) || !is_name(&type))
    return bad(err, "the envelope's type is not a str of 1 to 128 characters", "");
  if (!imc_next(&body, &payload) || payload.kind != IMC_BIN)
    return imc_fail(err, "bad_envelope", REMEDY, "the envelope's payload is %s, not bin", imc_kind_name(payload.kind));
  if (!imc_next(&body, &signatures) || signatures.kind != IMC_ARRAY)
    return imc_fail(err, "bad_envelope", REMEDY, "the envelope's signatures are %s, not an array",
                    imc_kind_name(signatures.kind));
  if (signatures.number > IMC_MAX_SIGNATURES)
    return imc_fail(err, "bad_envelope", REMEDY, "%llu signatures; at most %d are read",
                    (unsigned long long)signatures.number, IMC_MAX_SIGNATURES);
  envelope->type = type.bytes;
  envelope->payload = payload.bytes;
  for (uint64_t i = 0; i < signatures.number; i++) {
    if (read_signature(&body, envelope, err) < 0)
      return -1;
  }
  return 0;
}

int imc_verify_envelope(const struct imc_envelope *envelope, const struct imc_public *daemon, struct imc_error *err)
{
  if (envelope->count == 0)
    return imc_fail(err, "unsigned", "", "the envelope carries no signature");
  bool known = false;
  for (unsigned i = 0; i < envelope->count; i++) {
    if (!imc_is(envelope->signatures[i].key, daemon->id))
      continue;                    /* others may sign too */
    known = true;
    if (envelope->signatures[i].signature.size != IMC_SIGNATURE ||
        !imc_verify(daemon, authenticated(envelope->type, envelope->payload), envelope->signatures[i].signature.at))
      return imc_fail(err, "bad_signature", "", "the signature of %s does not verify over these bytes", daemon->id);
  }
  char room[384];
  if (!known)
    return imc_fail(err, "unknown_key", "", "no key here is known to the daemon; the first is %s",
                    imc_shown(envelope->signatures[0].key, room, sizeof room));
  return 0;
}

void imc_seal(struct imc_pack *frame, const char *type, struct imc_bytes payload, uint8_t *seed)
{
  const size_t begin = frame->size;
  imc_put_bytes(frame, "\0\0\0\0", IMC_HEADER);
  imc_put_array(frame, 4);
  imc_put_number(frame, 1);
  imc_put_str(frame, type);
  imc_put_bin(frame, payload.at, payload.size);
  if (seed) {
    uint8_t signature[IMC_SIGNATURE];
    char id[IMC_KEY_ID + 1];
    imc_sign(seed, authenticated(imc_text(type), payload), signature, id);
    imc_put_array(frame, 1);
    imc_put_array(frame, 2);
    imc_put_str(frame, id);
    imc_put_bin(frame, signature, sizeof signature);
  } else {
    imc_put_array(frame, 0);
  }
  const size_t body = frame->size - begin - IMC_HEADER;
  if (frame->full || body > IMC_MAX_FRAME) {
    frame->full = true;
    return;
  }
  for (int i = 0; i < IMC_HEADER; i++)
    frame->at[begin + (size_t)i] = (uint8_t)(body >> 8 * (IMC_HEADER - 1 - i));
}
