#include "messages.h"

#include "text.h"

#include <stdio.h>

static const uint64_t MAX_TIME = (1ull << 53) - 1;

static int wrong(struct imc_error *err, const char *where, const char *name, const char *problem)
{
  return imc_fail(err, "bad_reply", "", "%s.%s %s", where, name, problem);
}

int imc_take(const struct imc_value *map, const char *where, const char *name, enum imc_kind kind,
             struct imc_value *value, struct imc_error *err)
{
  if (!imc_find(map, name, value))
    return 0;
  if (value->kind == kind)
    return 1;
  return imc_fail(err, "bad_reply", "", "%s.%s is %s, not %s", where, name, imc_kind_name(value->kind),
                  imc_kind_name(kind));
}

int imc_need(const struct imc_value *map, const char *where, const char *name, enum imc_kind kind,
             struct imc_value *value, struct imc_error *err)
{
  const int found = imc_take(map, where, name, kind, value, err);
  if (found == 0)
    return wrong(err, where, name, "is missing");
  return found < 0 ? -1 : 0;
}

int imc_take_number(const struct imc_value *map, const char *where, const char *name, uint64_t high,
                    struct imc_value *value, struct imc_error *err)
{
  const int found = imc_take(map, where, name, IMC_INT, value, err);
  if (found <= 0 || (!value->negative && value->number <= high))
    return found;
  if (value->negative)
    return imc_fail(err, "bad_reply", "", "%s.%s is %lld; it may be 0 to %llu", where, name,
                    (long long)(int64_t)value->number, (unsigned long long)high);
  return imc_fail(err, "bad_reply", "", "%s.%s is %llu; it may be 0 to %llu", where, name,
                  (unsigned long long)value->number, (unsigned long long)high);
}

static int sized(const struct imc_value *map, const char *where, const char *name, enum imc_kind kind, size_t low,
                 size_t high, struct imc_value *value, struct imc_error *err)
{
  const int found = imc_take(map, where, name, kind, value, err);
  if (found <= 0)
    return found;
  const size_t length = kind == IMC_STR ? imc_characters(value->bytes) : value->bytes.size;
  if (length >= low && length <= high)
    return 1;
  char wanted[48];
  snprintf(wanted, sizeof wanted, low == high ? "%zu" : "%zu to %zu", low, high);
  return imc_fail(err, "bad_reply", "", "%s.%s has a length of %zu; it may be %s", where, name, length, wanted);
}

int imc_take_bin(const struct imc_value *map, const char *where, const char *name, size_t size,
                 struct imc_value *value, struct imc_error *err)
{
  return sized(map, where, name, IMC_BIN, size, size, value, err);
}

static int read_map(struct imc_bytes payload, const char *where, struct imc_value *map, struct imc_error *err)
{
  if (imc_check(payload, IMC_MAX_DEPTH, IMC_MAX_ITEMS, err) < 0)
    return -1;
  if (!imc_next(&payload, map) || map->kind != IMC_MAP)
    return imc_fail(err, "bad_reply", "", "%s is %s, not a map", where, imc_kind_name(map->kind));
  return 0;
}

static int need_name(const struct imc_value *map, const char *where, const char *name, struct imc_error *err)
{
  struct imc_value value;
  const int found = sized(map, where, name, IMC_STR, 1, IMC_MAX_NAME, &value, err);
  return found == 0 ? wrong(err, where, name, "is missing") : found;
}

int imc_read_hello(struct imc_bytes payload, struct imc_error *err)
{
  const char *const where = "the hello";
  struct imc_value map, value;
  if (read_map(payload, where, &map, err) < 0 || need_name(&map, where, "daemon", err) < 0 ||
      imc_need(&map, where, "boot", IMC_BIN, &value, err) < 0)
    return -1;
  const int dated = imc_take_number(&map, where, "time_ms", MAX_TIME, &value, err);
  if (dated <= 0)
    return dated < 0 ? -1 : wrong(err, where, "time_ms", "is missing");
  if (need_name(&map, where, "version", err) < 0)
    return -1;
  return imc_need(&map, where, "limits", IMC_MAP, &value, err);
}

int imc_read_data(struct imc_bytes payload, struct imc_data *data, struct imc_error *err)
{
  struct imc_value map, re, bytes, stream;
  if (read_map(payload, "data", &map, err) < 0)
    return -1;
  const int for_whom = imc_take_bin(&map, "data", "re", IMC_NONCE, &re, err);
  if (for_whom < 0)
    return -1;
  const int what = sized(&map, "data", "data", IMC_BIN, 0, IMC_MAX_DATA, &bytes, err);
  if (what < 0)
    return -1;
  if (for_whom == 0 || what == 0)
    return wrong(err, "data", for_whom == 0 ? "re" : "data", "is missing");
  if (imc_need(&map, "data", "stream", IMC_STR, &stream, err) < 0)
    return -1;
  *data = (struct imc_data){re.bytes, stream.bytes, bytes.bytes};
  return 0;
}

static int read_receipt(const struct imc_value *map, const char *name, bool *present, struct imc_error *err)
{
  struct imc_value receipt, value;
  char where[32];
  snprintf(where, sizeof where, "the reply.%s", name);
  const int found = imc_take(map, "the reply", name, IMC_MAP, &receipt, err);
  *present = found > 0;
  if (found <= 0)
    return found;
  const int seq = imc_take_number(&receipt, where, "seq", MAX_TIME, &value, err);
  const int leaf = seq < 0 ? -1 : imc_take_bin(&receipt, where, "leaf", IMC_DIGEST, &value, err);
  if (seq < 0 || leaf < 0)
    return -1;
  return seq == 0 || leaf == 0 ? wrong(err, "the reply", name, "lacks its seq or leaf") : 0;
}

int imc_read_reply(struct imc_bytes payload, struct imc_reply *reply, struct imc_error *err)
{
  const char *const where = "the reply";
  struct imc_value map, ok, re, req;
  *reply = (struct imc_reply){.ok = false};
  if (read_map(payload, where, &map, err) < 0 || imc_need(&map, where, "ok", IMC_BOOL, &ok, err) < 0)
    return -1;
  reply->ok = ok.truth;
  if (imc_need(&map, where, reply->ok ? "result" : "error", IMC_MAP, &reply->said, err) < 0)
    return -1;
  const int named = imc_take_bin(&map, where, "re", IMC_NONCE, &re, err);
  if (named < 0)
    return -1;
  const int digested = imc_take_bin(&map, where, "req", IMC_DIGEST, &req, err);
  if (digested < 0)
    return -1;
  if (named > 0)
    reply->re = re.bytes;
  if (digested > 0)
    reply->req = req.bytes;
  if (read_receipt(&map, "receipt", &reply->has_receipt, err) < 0)
    return -1;
  return read_receipt(&map, "intent", &reply->has_intent, err);
}
