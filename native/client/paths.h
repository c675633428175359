/* Host paths as a person types them. The Python twin is cli/paths.py. */
#ifndef IMMURE_PATHS_H
#define IMMURE_PATHS_H

#include "bytes.h"

#include <limits.h>

/* A host path and where it is seen inside, both absolute and without `.`, `..` and double slashes. */
struct imc_bound {
  char source[PATH_MAX], target[PATH_MAX];
};

/* `path` taken from `here` (absolute), as os.path.normpath writes it. False where it is too long. */
bool imc_absolute(const char *here, const char *path, char made[PATH_MAX]);

/* `P` or `P:T`; a colon only separates where a slash follows it. False for what the Python command line refuses. */
bool imc_read_bound(const char *here, const char *text, struct imc_bound *bound);

/* Where `here` is inside, if one of the bounds holds it; the deepest decides. `found` says whether. False: it cannot be
 * told. */
bool imc_inside(const char *here, const struct imc_bound *bounds, size_t count, char seen[PATH_MAX], bool *found);

#endif
