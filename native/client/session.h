/* One run over one connection: its streams pumped both ways, its reply verified. */
#ifndef IMMURE_SESSION_H
#define IMMURE_SESSION_H

#include "link.h"
#include "result.h"

struct imc_session {
  struct imc_link link;
  const struct imc_public *daemon;
  uint8_t nonce[IMC_NONCE], digest[IMC_DIGEST];   /* the command's, and SHA-256 of its payload */
  bool input;                      /* descriptor 0 has not ended yet */
  bool greeted;                    /* the hello has come */
  bool replied;
  struct imc_streams streams;
  struct imc_reply reply;          /* when replied; it lies in the link */
};

/* Sends what is in the link, and pumps until the reply is there. -1 with `err->code` NULL: `reply` is a signed refusal
 * of the connection itself. Ends the process where our own input or output fails. */
int imc_converse(struct imc_session *session, struct imc_error *err);

#endif
