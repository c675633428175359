#include "result.h"

#include "text.h"

#include <stdio.h>

#define WHERE "result"

static const uint64_t MAX_LENGTH = 1ull << 63;

void imc_streams_begin(struct imc_streams *streams)
{
  *streams = (struct imc_streams){.unasked = false};
  crypto_hash_sha256_init(&streams->out.state);
  crypto_hash_sha256_init(&streams->err.state);
  crypto_hash_sha256_init(&streams->in.state);
}

void imc_digest_add(struct imc_digest *digest, struct imc_bytes data)
{
  digest->length += data.size;
  crypto_hash_sha256_update(&digest->state, data.at, data.size);
}

int imc_streams_take(struct imc_streams *streams, const struct imc_data *data)
{
  const int descriptor = imc_is(data->stream, "stdout")   ? STDOUT_FILENO
                         : imc_is(data->stream, "stderr") ? STDERR_FILENO
                                                          : 0;
  if (data->data.size == 0)
    return 0;
  if (imc_starts(data->stream, "file:"))
    streams->unasked = true;
  if (descriptor)
    imc_digest_add(descriptor == STDOUT_FILENO ? &streams->out : &streams->err, data->data);
  return descriptor;
}

/* What the reply signs of one stream. */
struct record {
  uint64_t length;
  struct imc_bytes sha256;
};

static int read_record(const struct imc_value *value, struct imc_bytes name, struct record *record,
                       struct imc_error *err)
{
  char where[256];
  struct imc_value field;
  *record = (struct record){.length = 0};
  if (value->kind != IMC_MAP)
    return imc_fail(err, "bad_reply", "", WHERE ".streams holds something that is not a map");
  snprintf(where, sizeof where, WHERE ".streams.%.*s", (int)(name.size < 200 ? name.size : 200), (const char *)name.at);
  const int counted = imc_take_number(value, where, "length", MAX_LENGTH, &field, err);
  if (counted < 0)
    return -1;
  if (counted > 0)
    record->length = field.number;
  const int digested = imc_take_bin(value, where, "sha256", IMC_DIGEST, &field, err);
  if (digested < 0)
    return -1;
  if (digested > 0)
    record->sha256 = field.bytes;
  if (imc_take(value, where, "truncated", IMC_BOOL, &field, err) < 0)
    return -1;
  return imc_take(value, where, "passed", IMC_BOOL, &field, err) < 0 ? -1 : 0;
}

static bool matches(const struct imc_digest *digest, const struct record *record)
{
  if (digest->length != record->length)
    return false;
  if (record->sha256.size == 0)
    return record->length == 0;
  crypto_hash_sha256_state state = digest->state;
  uint8_t hash[IMC_DIGEST];
  crypto_hash_sha256_final(&state, hash);
  return memcmp(hash, record->sha256.at, IMC_DIGEST) == 0;
}

static int mismatch(struct imc_error *err, const char *stream, uint64_t came, uint64_t is_signed)
{
  return imc_fail(err, "stream_mismatch", "trust nothing of this stream",
                  "%s: %llu bytes came, and they are not the %llu that are signed", stream, (unsigned long long)came,
                  (unsigned long long)is_signed);
}

struct records {
  struct record out, err, in, file;
  bool has_in;
};

static int read_records(const struct imc_value *result, struct records *records, struct imc_error *err)
{
  struct imc_value streams, name, value;
  *records = (struct records){.has_in = false};
  const int found = imc_take(result, WHERE, "streams", IMC_MAP, &streams, err);
  if (found <= 0)
    return found;
  struct imc_bytes rest = streams.bytes;
  for (uint64_t i = 0; i < streams.number; i++) {
    struct record record;
    struct imc_bytes at;
    if (!imc_next(&rest, &name) || (at = rest, !imc_next(&at, &value)) || !imc_skip(&rest))
      return imc_fail(err, "bad_reply", "", WHERE ".streams ends early");
    if (read_record(&value, name.bytes, &record, err) < 0)
      return -1;
    if (imc_is(name.bytes, "stdout"))
      records->out = record;
    else if (imc_is(name.bytes, "stderr"))
      records->err = record;
    else if (imc_is(name.bytes, "stdin"))
      records->in = record, records->has_in = true;
    else if (imc_starts(name.bytes, "file:") && record.length > 0)
      records->file = record;
  }
  return 0;
}

static int compare(const struct records *signed_for, const struct imc_streams *streams, struct imc_error *err)
{
  const struct imc_digest *const in = &streams->in;
  if (streams->unasked || signed_for->file.length > 0)
    return imc_fail(err, "stream_mismatch", "trust nothing of this stream", "a file came, and none was asked for");
  if (!matches(&streams->err, &signed_for->err))
    return mismatch(err, "stderr", streams->err.length, signed_for->err.length);
  if (!matches(&streams->out, &signed_for->out))
    return mismatch(err, "stdout", streams->out.length, signed_for->out.length);
  /* A command may end before it has read all: then the daemon has less, never more, never other bytes. */
  if (in->length > 0 && signed_for->has_in &&
      (signed_for->in.length > in->length || (signed_for->in.length == in->length && !matches(in, &signed_for->in))))
    return imc_fail(err, "stream_mismatch", "trust nothing of this stream",
                    "stdin: %llu bytes were sent, and others are signed", (unsigned long long)in->length);
  return 0;
}

/* The fields that a run's result may have, and of what kind: all are checked, some are used. */
static int read_fields(const struct imc_value *said, struct imc_result *result, struct imc_error *err)
{
  static const struct { const char *name; enum imc_kind kind; } others[] = {
      {"stdout", IMC_BIN}, {"stderr", IMC_BIN}, {"usage", IMC_MAP}, {"events", IMC_MAP},
      {"files", IMC_MAP}, {"uncollected", IMC_ARRAY},
  };
  struct imc_value value;
  if (imc_need(said, WHERE, "sandbox", IMC_STR, &value, err) < 0 ||
      imc_need(said, WHERE, "cause", IMC_STR, &value, err) < 0)
    return -1;
  *result = (struct imc_result){.cause = value.bytes, .exit_code = -1, .signal = -1};
  const int exited = imc_take(said, WHERE, "exit_code", IMC_INT, &value, err);
  if (exited > 0)
    result->exit_code = value.negative ? 255 : (int64_t)(value.number & 0xff);
  const int signaled = exited < 0 ? -1 : imc_take(said, WHERE, "signal", IMC_INT, &value, err);
  if (signaled > 0)
    result->signal = value.negative ? 0 : (int64_t)(value.number & 0xff);
  if (signaled < 0)
    return -1;
  for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
    if (imc_take(said, WHERE, others[i].name, others[i].kind, &value, err) < 0)
      return -1;
  }
  const int held = imc_take(said, WHERE, "enforcement", IMC_MAP, &result->enforcement, err);
  const int refused = held < 0 ? -1 : imc_take(said, WHERE, "violations", IMC_ARRAY, &result->violations, err);
  const int failed = refused < 0 ? -1 : imc_take(said, WHERE, "failure", IMC_MAP, &result->failure, err);
  result->has_enforcement = held > 0;
  result->has_violations = refused > 0;
  result->has_failure = failed > 0;
  return failed < 0 ? -1 : 0;
}

static int untrusted(struct imc_error *err)
{
  char message[sizeof err->message];
  memcpy(message, err->message, sizeof message);
  return imc_fail(err, "untrusted_reply", "check that daemon.pub is this daemon's", "the result cannot be read: %.*s",
                  (int)sizeof message - 64, message);
}

int imc_read_result(const struct imc_reply *reply, const struct imc_streams *streams, struct imc_result *result,
                    struct imc_error *err)
{
  struct records records;
  if (!reply->has_receipt || !reply->has_intent)
    return imc_fail(err, "untrusted_reply", "check that daemon.pub is this daemon's", "a run's reply without receipts");
  if (read_records(&reply->said, &records, err) < 0)
    return untrusted(err);
  if (compare(&records, streams, err) < 0)
    return -1;
  return read_fields(&reply->said, result, err) < 0 ? untrusted(err) : 0;
}
