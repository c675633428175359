#include "paths.h"

#include <errno.h>
#include <stdlib.h>

/* posixpath.normpath of an absolute path: two leading slashes stay, three are one. */
static void normalise(const char *path, char made[PATH_MAX])
{
  const size_t root = path[1] == '/' && path[2] != '/' ? 2 : 1;
  size_t used = root;
  memcpy(made, "//", root);
  while (*path) {
    path += strspn(path, "/");
    const size_t length = strcspn(path, "/");
    if (length == 2 && memcmp(path, "..", 2) == 0) {
      while (used > root && made[used - 1] != '/')
        used--;
      if (used > root)
        used--;
    } else if (length > 0 && !(length == 1 && path[0] == '.')) {
      if (used > root)
        made[used++] = '/';
      memcpy(made + used, path, length);
      used += length;
    }
    path += length;
  }
  made[used] = '\0';
}

bool imc_absolute(const char *here, const char *path, char made[PATH_MAX])
{
  char joined[PATH_MAX];
  const size_t before = path[0] == '/' ? 0 : strlen(here) + 1, length = strlen(path);
  if (before + length >= sizeof joined)
    return false;
  if (before > 0) {
    memcpy(joined, here, before - 1);
    joined[before - 1] = '/';
  }
  memcpy(joined + before, path, length + 1);
  /* A root of one slash and the one that joins are not the root of two. */
  normalise(before == 2 && joined[0] == '/' && joined[1] == '/' ? joined + 1 : joined, made);
  return true;
}

bool imc_read_bound(const char *here, const char *text, struct imc_bound *bound)
{
  const char *split = NULL;
  for (const char *at = text; (at = strstr(at, ":/")); at++)
    split = at;
  if (!split)
    return imc_absolute(here, text, bound->source) && strcpy(bound->target, bound->source);
  char source[PATH_MAX];
  const size_t length = (size_t)(split - text);
  if (length == 0 || length >= sizeof source)
    return false;
  memcpy(source, text, length);
  source[length] = '\0';
  return imc_absolute(here, source, bound->source) && imc_absolute("/", split + 1, bound->target);
}

/* Whether `path` is `base` or beneath it; gives what is beneath, without a slash before it. */
static const char *beneath(const char *path, const char *base)
{
  const size_t length = strcmp(base, "/") == 0 ? 0 : strlen(base);
  if (strncmp(path, base, length) != 0 || (path[length] != '/' && path[length] != '\0'))
    return NULL;
  return path + length + (path[length] == '/');
}

bool imc_inside(const char *here, const struct imc_bound *bounds, size_t count, char seen[PATH_MAX], bool *found)
{
  size_t deepest = 0;
  *found = false;
  for (size_t i = 0; i < count; i++) {
    char source[PATH_MAX];
    if (!realpath(bounds[i].source, source)) {
      if (errno == ENOENT || errno == ENOTDIR)
        continue;                  /* what is not there holds nothing */
      return false;
    }
    const char *rest = beneath(here, source);
    /* Both hold `here`, so that the longer one is the deeper. */
    if (!rest || (*found && strlen(source) <= deepest))
      continue;
    *found = true;
    deepest = strlen(source);
    if (!imc_absolute(bounds[i].target, rest, seen))
      return false;
  }
  return true;
}
