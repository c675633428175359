/* A run's streams as they come, and its signed result compared with them. The Python twin is client/outcome.py. */
#ifndef IMMURE_RESULT_H
#define IMMURE_RESULT_H

#include "messages.h"

#include <sodium.h>

struct imc_digest {
  uint64_t length;
  crypto_hash_sha256_state state;
};

struct imc_streams {
  struct imc_digest out, err, in;  /* `in`: what was sent */
  bool unasked;                    /* a file came, and none was asked for */
};

struct imc_result {
  struct imc_bytes cause;
  int64_t exit_code, signal;       /* -1: absent */
  bool has_failure, has_enforcement, has_violations;
  struct imc_value failure, enforcement, violations;
};

void imc_streams_begin(struct imc_streams *streams);
void imc_digest_add(struct imc_digest *digest, struct imc_bytes data);

/* Takes a piece of a stream. Gives 1 or 2 for output that belongs to that descriptor, else 0. */
int imc_streams_take(struct imc_streams *streams, const struct imc_data *data);

/* The result of a reply that is ok. Codes `stream_mismatch`, `untrusted_reply`. */
int imc_read_result(const struct imc_reply *reply, const struct imc_streams *streams, struct imc_result *result,
                    struct imc_error *err);

#endif
