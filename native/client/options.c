#include "options.h"

#include <stddef.h>
#include <stdlib.h>

enum kind { TEXT, MANY, FLAG, COUNT, NETWORK, PYTHON };

static const struct known {
  const char *spelling;
  enum kind kind;
  size_t member;
} table[] = {
#define OPTION(spelling, kind, member) {spelling, kind, offsetof(struct imc_options, member)},
#include "options.def"
#undef OPTION
};

static const struct known *look_up(const char *word, size_t length)
{
  for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
    if (strlen(table[i].spelling) == length && memcmp(table[i].spelling, word, length) == 0)
      return &table[i];
  }
  return NULL;
}

static bool read_count(const char *text, uint64_t *number)
{
  const size_t length = strspn(text, "0123456789");
  if (length == 0 || length > 9 || text[length] != '\0' || text[0] == '0')
    return false;
  *number = strtoull(text, NULL, 10);
  return true;
}

static bool set(struct imc_options *options, const struct known *known, const char *value)
{
  void *const member = (char *)options + known->member;
  switch (known->kind) {
  case TEXT:
    *(const char **)member = value;
    return value[0] != '\0';
  case MANY: {
    struct imc_words *words = member;
    words->at[words->count++] = value;
    return value[0] != '\0';
  }
  case COUNT:
    return read_count(value, member);
  case NETWORK:
    *(const char **)member = value;
    return strcmp(value, "none") == 0 || strcmp(value, "loopback") == 0;
  default:
    return false;
  }
}

bool imc_read_options(struct imc_options *options, char *const *words, size_t count)
{
  *options = (struct imc_options){.quiet = false};
  struct imc_words *const lists[] = {&options->ro, &options->rw, &options->tmpfs, &options->env,
                                      &options->settings};
  for (size_t i = 0; i < sizeof lists / sizeof lists[0]; i++) {
    lists[i]->at = calloc(count + 1, sizeof *lists[i]->at);   /* lives as long as the process */
    if (!lists[i]->at)
      return false;
  }
  size_t at = 0;
  while (at < count) {
    const char *const word = words[at];
    if (word[0] != '-' || word[1] == '\0')
      break;                       /* the command; what follows is its own */
    at++;
    if (strcmp(word, "--") == 0)
      break;
    const char *const equals = strncmp(word, "--", 2) == 0 ? strchr(word, '=') : NULL;
    const struct known *const known = look_up(word, equals ? (size_t)(equals - word) : strlen(word));
    if (!known || known->kind == PYTHON || (known->kind == FLAG && equals))
      return false;
    if (known->kind == FLAG) {
      *(bool *)((char *)options + known->member) = true;
      continue;
    }
    const char *const value = equals ? equals + 1 : at < count ? words[at++] : NULL;
    if (!value || !set(options, known, value))
      return false;
  }
  options->command = words + at;
  options->command_count = count - at;
  return options->command_count > 0;
}
