/* UTF-8, strictly, and what of it may reach a terminal. */
#ifndef IMMURE_TEXT_H
#define IMMURE_TEXT_H

#include "bytes.h"

/* How many bytes the first character takes; 0 where they are not UTF-8 (overlong forms and surrogates are not). */
size_t imc_character(struct imc_bytes bytes, uint32_t *code);

bool imc_is_utf8(struct imc_bytes bytes);

/* Characters in UTF-8 that has been checked. */
size_t imc_characters(struct imc_bytes bytes);

enum { IMC_ESCAPED = 11 };         /* the longest: \UXXXXXXXX and the NUL */

/* The first character as the command line says it: itself where Python calls it printable, else escaped as Python would
 * (`unicode_escape`; a byte that is not UTF-8 is the lone surrogate that Python reads it as). Gives its size in
 * `bytes`. */
size_t imc_escape(struct imc_bytes bytes, char said[IMC_ESCAPED]);

/* A stranger's text for a message: at most 64 characters, quoted and escaped as Python's repr. */
const char *imc_shown(struct imc_bytes text, char *room, size_t size);

#endif
